import { expect, test } from 'vitest';
import { describeRun, formatSeconds, parseSaved, parseState, parseSummary } from '../src/model';
import { saved, summary } from './helpers';

test('what is no run is null, and wrong fields become harmless', () => {
  expect(parseSaved(undefined)).toBeNull();
  expect(parseSaved({ run: 'x' })).toBeNull();
  expect(parseSummary({ id: 'a', status: 'odd', done: 'many' })).toMatchObject({
    status: 'pending', done: 0, total: null
  });
  expect(parseState({ functions: 3, runs: [null] })).toEqual({
    version: '', functions: [], runs: []
  });
});

test('a run is told in one line', () => {
  expect(describeRun(saved().run)).toBe('3 / 3 · 1 failed · 1.5 s');
  const run = parseSummary(
    summary({ status: 'running', done: 1, total: 12000, failed: 0, running: 2, eta_s: 61 })
  );
  expect(run && describeRun(run)).toBe('1 / 12,000 · 2 of 2 running · 2.0/s · 1 min 01 s left');
});

test.each([
  [0.00002, '20 µs'], [0.25, '250 ms'], [59.97, '1 min 00 s'], [7260, '2 h 01 min'], [null, '']
])('%s seconds read as %s', (seconds, text) => {
  expect(formatSeconds(seconds)).toBe(text);
});
