/** `waybill status`: a line for each source and flow, once or again and again. */
import { abortableDelay } from '../../core/run-service.ts';
import { readConfig, type GlobalOptions } from '../context.ts';
import { EXIT } from '../exit-status.ts';
import { keyReader, type Key } from '../status/keys.ts';
import { LOOK_EVERY_MS, StatusBoard } from '../status/board.ts';
import { renderStatus } from '../status/render.ts';
import type { Lag, StatusReport } from '../status/report.ts';
import { Screen } from '../status/screen.ts';
import { coloured, plain, type Paint } from '../status/table.ts';

export interface StatusOptions extends GlobalOptions {
  readonly json?: boolean;
  readonly watch?: boolean;
}

/** Exit status 3 when a system could not be reached; what stands still for other reasons is in the report. */
export async function status(options: StatusOptions): Promise<number> {
  const config = readConfig(options);
  const board = new StatusBoard(config);
  try {
    if (options.watch === true) {
      await watch(board, options.json === true, `waybill status  ${config.nats.prefix}`);
      return EXIT.good;
    }
    const report = await board.look();
    if (options.json === true) console.log(JSON.stringify(report));
    else for (const line of renderStatus(report, { width: lineWidth(), paint: paint() })) console.log(line);
    return unreachable(report) ? EXIT.unreachable : EXIT.good;
  } finally {
    board.close();
  }
}

function unreachable({ nats, sources, transforms, flows }: StatusReport): boolean {
  const away = /_(unreachable|auth|timeout|no_jetstream)$/;
  return (
    nats.state === 'unreachable' ||
    [...sources, ...transforms, ...flows].some(
      (line) => line.state === 'unreachable' || away.test(line.problem?.code ?? ''),
    )
  );
}

function isTerminal(): boolean {
  return process.stdout.isTTY && process.env['TERM'] !== 'dumb';
}

/** Colours only on a terminal, and not where NO_COLOR is set (https://no-color.org). */
function paint(): Paint {
  return isTerminal() && (process.env['NO_COLOR'] ?? '') === '' ? coloured : plain;
}

function lineWidth(): number {
  return isTerminal() ? process.stdout.columns : Infinity;
}

/** Shows the board every second until a signal, `q`, or until nobody reads any more. */
async function watch(board: StatusBoard, json: boolean, title: string): Promise<void> {
  const stop = new AbortController();
  const end = (): void => stop.abort();
  process.once('SIGINT', end);
  process.once('SIGTERM', end);
  process.stdout.once('error', end);
  const looking = board.watch(stop.signal);
  const terminal = isTerminal() && !json;
  const trends = new Trends();
  const screen = new Screen(process.stdout);
  const lines = (width: number, rows = Infinity): string[] =>
    renderStatus(board.report(), { width, rows, paint: paint(), trends: trends.lags });
  const draw = (): void => {
    const head = [paint()(header(title, screen.width), 'bold'), ''];
    screen.draw(head, lines(screen.width, screen.roomBelow(head.length)));
  };
  const onKey = (key: Key): void => {
    if (key === 'quit') return end();
    screen.scroll(key);
    draw();
  };
  const closeKeys = terminal ? listenForKeys(onKey) : () => {};
  if (terminal) process.stdout.on('resize', draw);
  try {
    // The first look takes a moment; half a table would only alarm.
    await Promise.race([board.complete(), abortableDelay(FIRST_LOOK_MS, stop.signal)]);
    while (!stop.signal.aborted) {
      trends.add(board.report());
      if (terminal) draw();
      else if (json) console.log(JSON.stringify(board.report()));
      else console.log(`${lines(Infinity).join('\n')}\n`);
      await abortableDelay(LOOK_EVERY_MS, stop.signal);
    }
  } finally {
    if (terminal) screen.leave(lines(screen.width));
    process.stdout.off('resize', draw);
    closeKeys();
    board.close();
    await looking;
  }
}

const FIRST_LOOK_MS = 3000;

function header(title: string, width: number): string {
  const right = `${new Date().toISOString().slice(0, 19).replace('T', ' ')} UTC  q quits`;
  const room = width - right.length - 2;
  return room < title.length ? right.slice(0, width) : `${title.padEnd(room)}  ${right}`;
}

/** Gives what undoes the listening. */
function listenForKeys(onKey: (key: Key) => void): () => void {
  const { stdin } = process;
  if (!stdin.isTTY) return () => {};
  const onData = keyReader(onKey);
  stdin.setRawMode(true);
  stdin.on('data', onData);
  return () => {
    stdin.off('data', onData);
    stdin.setRawMode(false);
    stdin.pause();
  };
}

const TREND_SAMPLES = 120;

/** The lags of each line, as far as they are shown. */
class Trends {
  readonly lags = new Map<string, Lag[]>();

  add({ sources, transforms, flows }: StatusReport): void {
    for (const line of sources) this.#push(`source ${line.name}`, line.lag);
    for (const line of transforms) this.#push(`transform ${line.name}`, line.lag);
    for (const line of flows) this.#push(`flow ${line.name}`, line.lag);
  }

  #push(key: string, lag: Lag): void {
    const lags = this.lags.get(key) ?? [];
    lags.push(lag);
    this.lags.set(key, lags.slice(-TREND_SAMPLES));
  }
}
