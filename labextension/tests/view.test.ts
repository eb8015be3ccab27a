// @vitest-environment happy-dom
import { expect, test, vi } from 'vitest';
import { RunView } from '../src/view';
import { HOSTILE, row, saved, summary } from './helpers';

const dataRows = (view: RunView): HTMLElement[] => [
  ...view.node.querySelectorAll<HTMLElement>('[role=row][data-index]')
];

test('a user\'s data is text, in the table and in an opened row', () => {
  const view = new RunView(saved(), null);
  document.body.append(view.node);
  dataRows(view)[1]?.click();
  expect(view.node.querySelector('img')).toBeNull();
  expect(view.node.querySelector('.nbs-detail')?.textContent).toContain(`Traceback ${HOSTILE}`);
  expect(view.node.textContent).toContain(HOSTILE);
});

test('names and numbers that screen readers find', () => {
  const view = new RunView(saved(), null);
  const bar = view.node.querySelector('[role=progressbar]');
  expect(bar?.getAttribute('aria-valuenow')).toBe('3');
  expect(bar?.getAttribute('aria-valuemax')).toBe('3');
  expect(bar?.getAttribute('aria-label')).toBe('Progress of square');
  expect(dataRows(view).map(node => node.dataset['status'])).toEqual(['ok', 'failed', 'ok']);
});

test('the filter leaves the failed rows', () => {
  const view = new RunView(saved(), null);
  view.node.querySelectorAll<HTMLElement>('.nbs-filter')[1]?.click();
  expect(dataRows(view).map(node => node.dataset['index'])).toEqual(['1']);
});

test('a kernel that does not know the run leaves the saved state, and it is said', async () => {
  const view = new RunView(saved(), () => Promise.reject(new Error('unknown run')));
  await vi.waitFor(() => {
    expect(view.node.querySelector('.nbs-note')?.textContent).toBe('Saved state');
  });
  expect(dataRows(view)).toHaveLength(3);
});

test('a hundred thousand rows ask for those in sight only', async () => {
  const ask = vi.fn((type: string, content: Record<string, unknown>) => {
    const start = Number(content['start']);
    return Promise.resolve({
      type,
      run: summary({ total: 100000, status: 'running' }),
      total: 100000,
      rows: Array.from({ length: Number(content['stop']) - start }, (_, i) => row(start + i))
    });
  });
  const view = new RunView(saved({ total: 100000, status: 'running' }), ask);
  await vi.waitFor(() => {
    expect(dataRows(view).length).toBeGreaterThan(9);
  });
  expect(dataRows(view).length).toBeLessThan(20);
  expect(view.node.querySelector('[role=grid]')?.getAttribute('aria-rowcount')).toBe('100001');
  view.node.querySelector<HTMLElement>('.nbs-button')?.click();
  expect(ask).toHaveBeenCalledWith('nbscale_cancel_request', { run_id: 'r1' });
});
