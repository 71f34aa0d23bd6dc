/** The command line. Commands are loaded when they are asked for, so that `run` holds no more than it needs. */
import { Command, CommanderError, Option } from 'commander';
import { waybillVersion } from '../core/version.ts';
import { EXIT, reportError } from './exit-status.ts';

type Action = (...args: never[]) => Promise<number> | number;

const program = new Command('waybill')
  .description('Change-data-capture replication for supply chains')
  .version(waybillVersion())
  .option('--config <file>', 'configuration file (default ./waybill.yaml, or WAYBILL_CONFIG)')
  .exitOverride();

/** Adds a command whose last argument is the options of the program and its own. */
function command(parent: Command, usage: string, description: string, load: () => Promise<Action>): Command {
  return parent
    .command(usage)
    .description(description)
    .exitOverride()
    .option('--config <file>', 'configuration file')
    .action(async (...args: unknown[]) => {
      const self = args.pop() as Command;
      args.pop();
      const action = (await load()) as (...all: unknown[]) => Promise<number>;
      process.exitCode = await action(...args, self.optsWithGlobals());
    });
}

command(program, 'run', 'run all stages, or those named', async () => (await import('./commands/run.ts')).run)
  .option('--only <stages>', 'these stages, comma-separated, e.g. capture:wms,apply:wms_replica')
  .option('--listen <host:port>', 'overrides monitoring.listen')
  .addOption(
    new Option('--log-level <level>', 'what is logged')
      .choices(['trace', 'debug', 'info', 'warn', 'error', 'silent'])
      .default('info'),
  );

const act = () => import('./commands/act.ts');
command(
  program,
  'check',
  'preflight: configuration, servers, rights; every finding with its remedy',
  async () => (await import('./commands/check.ts')).check,
).option('--json', 'as JSON, for programs');
command(
  program,
  'status',
  'a line per source and flow: state, position, lag, rates, log, quarantine, last proof',
  async () => (await import('./commands/status.ts')).status,
)
  .option('--watch', 'again every second, in place on a terminal; q quits')
  .option('--json', 'as JSON, for programs');
command(
  program,
  'grants <source-or-target>',
  'the least-privilege SQL for a DBA',
  async () => (await import('./commands/grants.ts')).grants,
);
command(
  program,
  'schema [entity]',
  'JSON Schema of the configuration, or of the records of an entity',
  async () => (await import('./commands/schema.ts')).schema,
);
command(
  program,
  'tail <source>',
  'the stream of a source, or of records (canonical), as JSON lines',
  async () => (await import('./commands/tail.ts')).tail,
)
  .option('--table <schema.table>', 'only changes of this table')
  .option('--from <position>', 'an LSN, or a position as printed')
  .option('--limit <rows>', 'stop after so many rows');
command(
  program,
  'snapshot <source> [tables...]',
  'read tables again while the log streams; of a flow of records: write them all anew',
  async () => (await act()).snapshot,
)
  .option('--from <key>', 'read only rows of one table, from this key on; a key of several columns as a JSON array')
  .option('--to <key>', 'read only rows of one table, to before this key')
  .option('--wait', 'show how far it is until all is read, or stopped')
  .option('--cancel', 'stop all that is read of the source')
  .option('--reset', 'make a new slot and read everything: after a slot or frames were lost');
command(
  program,
  'rebuild <flow>',
  'build the tables of a mirror flow anew from the frames that its stream has kept',
  async () => (await import('./commands/rebuild.ts')).rebuild,
).option('--yes', 'do not ask');
command(
  program,
  'teardown <source>',
  'drop slot, publication and stream, after asking; of an outbound flow: what it left in the system it wrote to',
  async () => (await act()).teardown,
).option('--yes', 'do not ask');
command(
  program,
  'verify [flows...]',
  'compare both sides now, of these flows or of all; exit status 1 on confirmed drift, or where rows could not be proven',
  async () => (await import('./commands/verify.ts')).verify,
)
  .option(
    '--repair',
    'have rows that differ written again, through the stream; extra ones go only with `extra_rows: delete`',
  )
  .option('--resume', 'go on with a comparison that was interrupted; one of records begins anew')
  .option(
    '--max-load <share>',
    'share of time (up to 1) for which it may keep one session of each database busy; default: monitoring.verify.max_load',
  )
  .option('--json', 'as JSON, for programs');
command(
  program,
  'audit [target]',
  'who did what: the audit logs of the targets',
  async () => (await import('./commands/audit.ts')).auditCommand,
)
  .option('--verify', 'check that no entry was changed, removed or cut off; exit status 1 if one was')
  .option('--json', 'as JSON, for programs');
command(
  program,
  'explain <entity> [key...]',
  'where each field of a record came from; the key as field=value, or its values in order',
  async () => (await import('./commands/explain.ts')).explain,
).option('--json', 'as JSON, for programs');
const quarantine = program.command('quarantine').description('the exception inbox').exitOverride();
command(quarantine, 'list [flow]', 'changes that wait', async () => (await act()).quarantineList).option(
  '--json',
  'as JSON, for programs',
);
command(quarantine, 'show <flow> <id>', 'one change with its row', async () => (await act()).quarantineShow);
command(quarantine, 'replay <flow> [ids...]', 'apply them now', async () => (await act()).quarantineReplay).option(
  '--all',
  'all that wait in the flow',
);
command(
  quarantine,
  'discard <flow> [ids...]',
  'delete them without applying',
  async () => (await act()).quarantineDiscard,
).option('--all', 'all that wait in the flow');

/** A server that hangs never answers the goodbye, and its socket would keep this process for ever. */
const LEAVE_MS = 2000;

try {
  await program.parseAsync();
} catch (thrown) {
  if (thrown instanceof CommanderError) process.exitCode = thrown.exitCode === 0 ? EXIT.good : EXIT.usage;
  else process.exitCode = reportError(thrown);
}
setTimeout(() => process.exit(), LEAVE_MS).unref();
