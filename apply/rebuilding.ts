/** What the record of a table says until its reading begins in the stream. */
export const REBUILDING = 'the flow is being rebuilt from its stream, and has yet to come to where the table is read';
