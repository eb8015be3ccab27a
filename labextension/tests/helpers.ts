/** Data as the kernel sends it. */
import { parseSaved } from '../src/model';
import type { SavedRun } from '../src/model';

export const HOSTILE = '<img src=x onerror="globalThis.pwned = 1">';

export function summary(fields: Record<string, unknown> = {}): Record<string, unknown> {
  return {
    id: 'r1', function: 'square', status: 'ok', total: 3, done: 3, ok: 2, failed: 1,
    cancelled: 0, running: 0, pending: 0, limit: 2, elapsed_s: 1.5, rate: 2, eta_s: null,
    started_at: 1, ...fields
  };
}

export function row(index: number, status = 'ok'): Record<string, unknown> {
  return {
    index, input: HOSTILE, status, value: status === 'failed' ? `ValueError: ${HOSTILE}` : '4',
    duration: 0.1, attempts: 1, worker: 'w0'
  };
}

export function saved(fields: Record<string, unknown> = {}): SavedRun {
  const failed = { ...row(1, 'failed'), traceback: `Traceback ${HOSTILE}`, stdout: 'said', repr: '' };
  const result = parseSaved({
    version: 1, run: summary(fields), rows: [row(0), row(1, 'failed'), row(2)],
    failed: [failed], live: false
  });
  if (result === null) {
    throw new Error('The sample is no run.');
  }
  return result;
}
