/**
 * Says what runs this program in the way in which Node 21 and newer say it. Where nobody says it, pg tries whether it runs
 * at Cloudflare by making an HTTP response, for which Node loads a whole HTTP client: half of what it costs to start Node.
 * To be imported before anything that may load pg.
 */
if (!('navigator' in globalThis))
  Object.defineProperty(globalThis, 'navigator', {
    value: { userAgent: `Node.js/${process.versions.node.split('.')[0]}` },
    configurable: true,
  });
