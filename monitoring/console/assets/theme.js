/* Before the first paint: the theme that was chosen, else that of the system. */
document.documentElement.dataset.theme = localStorage.getItem('waybill-theme') ?? 'system';
