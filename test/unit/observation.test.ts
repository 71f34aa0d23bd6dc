/** What processes tell of each other, and what others may say in their place. */
import { describe, expect, it } from 'vitest';
import { SampleSet } from '../../monitoring/alerts/sample-set.ts';
import { Metrics } from '../../monitoring/metrics.ts';
import { Observatory, observer, type Observation } from '../../monitoring/observation.ts';

function listener(): Observatory {
  return new Observatory(observer('here', new Metrics(), () => []));
}

async function told(): Promise<Observation> {
  const metrics = new Metrics();
  metrics.captureReport('wms').state('streaming');
  return await observer('there', metrics, () => ['capture:wms'])();
}

describe('an observatory', () => {
  it('takes what a process tells, until it leaves', async () => {
    const observatory = listener();
    const said = await told();
    expect(observatory.hear(JSON.stringify(said))).toBe(true);
    expect((await observatory.current())[1]).toEqual(said);
    expect(observatory.hear(JSON.stringify({ ...said, leaves: true }))).toBe(true);
    expect(await observatory.current()).toHaveLength(1);
  });

  it.each([
    ['no JSON', 'hello'],
    ['nothing', ''],
    ['null', 'null'],
    ['a newer version', '{"v":2,"process":"there","samples":[],"stages":[]}'],
    ['no samples', '{"v":1,"process":"there"}'],
    ['samples that are none', '{"v":1,"process":"there","samples":[null],"stages":[]}'],
    ['samples without labels', '{"v":1,"process":"there","samples":[{"name":"a","value":1}],"stages":[]}'],
    ['stages that are none', '{"v":1,"process":"there","samples":[],"stages":[{"kind":"capture"}]}'],
  ])('is not harmed by %s', async (_, text) => {
    const observatory = listener();
    expect(observatory.hear(text)).toBe(false);
    expect(() => observatory.hear(text)).not.toThrow();
    const current = await observatory.current();
    expect(current).toHaveLength(1);
    expect(SampleSet.of(current).all('waybill_capture_state')).toEqual([]);
  });
});
