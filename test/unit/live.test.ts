/** Server-sent events: told to whoever listens, and nothing is kept of whoever has left. */
import { createServer, request, type ClientRequest, type IncomingMessage } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, beforeEach, expect, it } from 'vitest';
import { Live } from '../../monitoring/console/live.ts';
import type { ConsoleData, OverviewView } from '../../monitoring/console/views.ts';
import { waitFor } from '../support/wait.ts';

let answers: ((view: OverviewView) => void)[] = [];
let live: Live;
let port: number;
let close: () => Promise<void>;

beforeEach(async () => {
  answers = [];
  const data = { overview: () => new Promise((resolve) => answers.push(resolve)) } as unknown as ConsoleData;
  live = new Live(data);
  const server = createServer((_, response) => live.join(response));
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  port = (server.address() as AddressInfo).port;
  close = async () => {
    live.close();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  };
});
afterEach(() => close());

function look(): Promise<{ sent: ClientRequest; response: IncomingMessage; text: () => string }> {
  return new Promise((resolve, reject) => {
    const sent = request({ port, path: '/' }, (response) => {
      let text = '';
      response.on('data', (data: Buffer) => (text += data.toString()));
      response.on('error', () => undefined);
      resolve({ sent, response, text: () => text });
    });
    sent.on('error', reject);
    sent.end();
  });
}

const view = (installation: string): OverviewView => ({ installation }) as unknown as OverviewView;

it('an answer that comes after the end harms nobody', async () => {
  const { response } = await look();
  await waitFor('the question', async () => answers.length === 1);
  const ended = new Promise((resolve) => response.on('close', resolve));
  live.close();
  answers[0]!(view('late'));
  await ended;
});

it('a page that leaves makes room', async () => {
  const pages = [];
  for (let i = 0; i < 64; i++) pages.push(await look());
  const refused = await look();
  expect(refused.response.statusCode).toBe(503);
  for (const { sent } of pages) sent.destroy();
  const next = await waitFor('room', async () => {
    const page = await look();
    return page.response.statusCode === 200 ? page : undefined;
  });
  answers[0]!(view('first'));
  await waitFor('the overview', async () => next.text().includes('first'));
  expect(next.text().match(/event: overview/g)).toHaveLength(1);
});
