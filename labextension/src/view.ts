/** One view of one run: a bar, two buttons, a table of which only the rows in sight exist. */
import { NoReplyError } from './kernel';
import type { Ask } from './kernel';
import {
  describeRun,
  formatCount,
  formatSeconds,
  isSettled,
  parseDetail,
  parsePage,
  asFields
} from './model';
import type { Detail, Row, SavedRun, Status, Summary } from './model';

export const ROW_HEIGHT = 26;
const MAX_VISIBLE_ROWS = 10;
/** Requests in a row without an answer after which the kernel counts as gone. */
const SILENCES_BORNE = 5;
/** Rows asked for beyond those in sight, so that a short scroll finds them there. */
const MARGIN_ROWS = 20;
/** The most requests for rows are ten a second. */
const REFRESH_MS = 100;

const STATUS_ICONS: Record<Status, string> = {
  pending: '○',
  running: '◐',
  ok: '✓',
  failed: '✕',
  cancelled: '⊘'
};

/** An element with a class and text; text is never read as markup. */
export function make<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  className = '',
  text = ''
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  if (className) {
    element.className = className;
  }
  if (text) {
    element.textContent = text;
  }
  return element;
}

/** Show a status by an icon and a word, so that colour is never the only sign. */
export function statusBadge(status: Status): HTMLElement {
  const badge = make('span', 'nbs-status');
  badge.dataset['status'] = status;
  const icon = make('span', 'nbs-icon', STATUS_ICONS[status]);
  icon.setAttribute('aria-hidden', 'true');
  badge.append(icon, make('span', '', status));
  return badge;
}

/** Where a run stands: name, status, bar, counts and the two buttons. */
export class RunHeader {
  readonly node = make('div', 'nbs-head');
  private readonly name = make('span', 'nbs-name');
  private readonly badge = make('span', 'nbs-badge');
  private readonly text = make('span', 'nbs-text');
  private readonly bar = make('div', 'nbs-bar');
  private readonly okPart = make('div', 'nbs-bar-ok');
  private readonly failedPart = make('div', 'nbs-bar-failed');
  private readonly cancel = make('button', 'nbs-button', 'Cancel');
  private readonly retry = make('button', 'nbs-button', 'Retry failed');

  constructor(act: (type: 'nbscale_cancel_request' | 'nbscale_retry_request') => void) {
    this.cancel.type = 'button';
    this.retry.type = 'button';
    this.cancel.addEventListener('click', () => {
      act('nbscale_cancel_request');
    });
    this.retry.addEventListener('click', () => {
      act('nbscale_retry_request');
    });
    this.bar.setAttribute('role', 'progressbar');
    this.bar.setAttribute('aria-valuemin', '0');
    this.bar.append(this.okPart, this.failedPart);
    const title = make('div', 'nbs-title');
    const buttons = make('span', 'nbs-buttons');
    buttons.append(this.cancel, this.retry);
    title.append(this.name, this.badge, this.text, buttons);
    this.node.append(title, this.bar);
  }

  /** Draw a summary; without a kernel there is nothing that a button could do. */
  update(run: Summary, reachable: boolean): void {
    this.name.textContent = run.function;
    this.badge.replaceChildren(statusBadge(run.status));
    this.text.textContent = describeRun(run);
    const settled = isSettled(run);
    const share = (count: number): string =>
      `${run.total ? Math.min(100, (100 * count) / run.total) : settled && run.done ? (100 * count) / run.done : 0}%`;
    this.okPart.style.width = share(run.ok);
    this.failedPart.style.width = share(run.failed + run.cancelled);
    this.bar.classList.toggle('nbs-unknown', run.total === null && !settled);
    this.bar.setAttribute('aria-label', `Progress of ${run.function}`);
    this.bar.setAttribute('aria-valuenow', String(run.done));
    this.bar.setAttribute('aria-valuemax', String(run.total ?? run.done));
    this.bar.setAttribute('aria-valuetext', describeRun(run));
    this.cancel.hidden = settled || !reachable;
    this.retry.hidden = !settled || run.failed + run.cancelled === 0 || !reachable;
  }
}

/** The whole view of a run; `ask` is null where no kernel can answer. */
export class RunView {
  readonly node = make('div', 'nbs-view');
  private readonly header: RunHeader;
  private readonly filters = make('div', 'nbs-filters');
  private readonly all = make('button', 'nbs-filter', 'All');
  private readonly failedOnly = make('button', 'nbs-filter', 'Failed');
  private readonly note = make('div', 'nbs-note');
  private readonly grid = make('div', 'nbs-grid');
  private readonly scroller = make('div', 'nbs-scroller');
  private readonly space = make('div', 'nbs-space');
  private readonly detail = make('div', 'nbs-detail');
  private readonly elements = new Map<number, HTMLElement>();
  private readonly rows = new Map<number, Row>();
  private total: number;
  private filter: 'failed' | null = null;
  private opened: number | null = null;
  private fetching = false;
  private silences = 0;
  private again = false;
  private lastFetch = 0;
  private timer: ReturnType<typeof setTimeout> | undefined;
  private disposed = false;
  /** Counts changes of the filter, so that a late reply to an old question is dropped. */
  private generation = 0;

  constructor(
    private saved: SavedRun,
    private ask: Ask | null
  ) {
    this.total = saved.run.total ?? saved.rows.length;
    this.header = new RunHeader(type => void this.act(type));
    this.all.type = 'button';
    this.failedOnly.type = 'button';
    this.all.addEventListener('click', () => {
      this.setFilter(null);
    });
    this.failedOnly.addEventListener('click', () => {
      this.setFilter('failed');
    });
    this.filters.setAttribute('role', 'group');
    this.filters.setAttribute('aria-label', 'Rows shown');
    this.filters.append(this.all, this.failedOnly, this.note);
    this.note.setAttribute('role', 'status');
    this.buildGrid();
    this.detail.hidden = true;
    this.node.append(this.header.node, this.filters, this.grid, this.detail);
    this.useSaved();
    this.draw();
    this.refresh();
  }

  get run(): Summary {
    return this.saved.run;
  }

  /** Take a newer summary; the rows in sight follow. */
  update(run: Summary): void {
    this.saved = { ...this.saved, run };
    if (this.filter === null && run.total !== null) {
      this.total = run.total;
    }
    this.draw();
    this.refresh();
  }

  /** Take newer output data, as a settled run's last update brings it. */
  updateSaved(saved: SavedRun): void {
    this.saved = saved;
    if (this.ask === null) {
      this.useSaved();
    }
    this.draw();
    this.refresh();
  }

  /** Use another way to the kernel, or none. */
  setAsk(ask: Ask | null): void {
    this.ask = ask;
    if (ask === null) {
      this.useSaved();
    }
    this.draw();
    this.refresh();
  }

  dispose(): void {
    this.disposed = true;
    clearTimeout(this.timer);
    this.node.remove();
  }

  private buildGrid(): void {
    this.grid.setAttribute('role', 'grid');
    this.grid.setAttribute('aria-label', `Results of ${this.saved.run.function}`);
    const head = make('div', 'nbs-row nbs-columns');
    head.setAttribute('role', 'row');
    for (const title of ['#', 'Input', 'Status', 'Value', 'Time', 'Worker']) {
      const cell = make('div', 'nbs-cell', title);
      cell.setAttribute('role', 'columnheader');
      head.append(cell);
    }
    this.scroller.setAttribute('role', 'rowgroup');
    this.space.setAttribute('role', 'presentation');
    this.scroller.append(this.space);
    this.scroller.addEventListener('scroll', () => {
      this.drawRows();
      this.refresh();
    });
    this.grid.append(head, this.scroller);
  }

  private setFilter(filter: 'failed' | null): void {
    if (this.filter === filter) {
      return;
    }
    this.filter = filter;
    this.generation += 1;
    this.scroller.scrollTop = 0;
    this.rows.clear();
    this.useSaved();
    this.draw();
    this.refresh();
  }

  private savedRows(): Row[] {
    return this.filter === 'failed' ? this.saved.failed : this.saved.rows;
  }

  private useSaved(): void {
    const rows = this.savedRows();
    if (this.ask === null) {
      this.rows.clear();
      this.total = rows.length;
    } else {
      const { run } = this.saved;
      this.total = this.filter === 'failed' ? run.failed : (run.total ?? run.done);
    }
    rows.forEach((row, position) => this.rows.set(position, row));
  }

  private draw(): void {
    const { run } = this.saved;
    this.header.update(run, this.ask !== null);
    this.all.setAttribute('aria-pressed', String(this.filter === null));
    this.failedOnly.setAttribute('aria-pressed', String(this.filter === 'failed'));
    this.failedOnly.textContent = `Failed${run.failed ? ` ${formatCount(run.failed)}` : ''}`;
    this.grid.setAttribute('aria-rowcount', String(this.total + 1));
    if (this.ask === null) {
      const whole = this.filter === 'failed' ? run.failed : (run.total ?? run.done);
      const shown = this.savedRows().length;
      this.note.textContent =
        shown < whole
          ? `Saved state · first ${formatCount(shown)} of ${formatCount(whole)} rows`
          : 'Saved state';
    } else {
      this.note.textContent = '';
    }
    this.drawRows();
  }

  private range(): [number, number] {
    const height = this.scroller.clientHeight || MAX_VISIBLE_ROWS * ROW_HEIGHT;
    const start = Math.min(
      Math.floor(this.scroller.scrollTop / ROW_HEIGHT),
      Math.max(0, this.total - 1)
    );
    return [start, Math.min(this.total, start + Math.ceil(height / ROW_HEIGHT) + 1)];
  }

  private drawRows(): void {
    const visible = Math.min(MAX_VISIBLE_ROWS, Math.max(1, this.total));
    this.scroller.style.height = `${visible * ROW_HEIGHT}px`;
    this.space.style.height = `${this.total * ROW_HEIGHT}px`;
    this.space.classList.toggle('nbs-empty', this.total === 0);
    const [start, stop] = this.range();
    for (const [position, element] of this.elements) {
      if (position < start || position >= stop) {
        element.remove();
        this.elements.delete(position);
      }
    }
    for (let position = start; position < stop; position += 1) {
      this.drawRow(position);
    }
  }

  private drawRow(position: number): void {
    let element = this.elements.get(position);
    if (element === undefined) {
      element = this.makeRow(position);
      this.elements.set(position, element);
      // Rows stand in the document in the order of the screen, as screen readers need them.
      const next = this.elements.get(position + 1) ?? null;
      this.space.insertBefore(element, next);
    }
    const row = this.rows.get(position);
    const cells = element.children;
    const fill = (column: number, text: string): void => {
      const cell = cells[column] as HTMLElement;
      if (cell.textContent !== text) {
        cell.textContent = text;
        cell.title = text;
      }
    };
    if (row === undefined) {
      element.classList.add('nbs-loading');
      return;
    }
    element.classList.remove('nbs-loading');
    element.setAttribute('aria-expanded', String(this.opened === row.index));
    element.dataset['index'] = String(row.index);
    fill(0, String(row.index));
    fill(1, row.input);
    if (element.dataset['status'] !== row.status) {
      element.dataset['status'] = row.status;
      cells[2]?.replaceChildren(statusBadge(row.status));
    }
    fill(3, row.value);
    fill(4, formatSeconds(row.duration));
    fill(5, row.worker);
  }

  private makeRow(position: number): HTMLElement {
    const element = make('div', 'nbs-row');
    element.setAttribute('role', 'row');
    element.setAttribute('aria-rowindex', String(position + 2));
    element.tabIndex = 0;
    element.style.top = `${position * ROW_HEIGHT}px`;
    for (let column = 0; column < 6; column += 1) {
      const cell = make('div', 'nbs-cell');
      cell.setAttribute('role', 'gridcell');
      element.append(cell);
    }
    element.addEventListener('click', () => void this.toggle(position));
    element.addEventListener('keydown', event => {
      if (event.key === 'Enter' || event.key === ' ') {
        event.preventDefault();
        event.stopPropagation();
        void this.toggle(position);
      } else if (event.key === 'ArrowDown' || event.key === 'ArrowUp') {
        const other = this.elements.get(position + (event.key === 'ArrowDown' ? 1 : -1));
        if (other !== undefined) {
          event.preventDefault();
          event.stopPropagation();
          other.focus();
        }
      }
    });
    return element;
  }

  private async toggle(position: number): Promise<void> {
    const row = this.rows.get(position);
    if (row === undefined) {
      return;
    }
    if (this.opened === row.index) {
      this.close();
      return;
    }
    this.opened = row.index;
    this.drawRows();
    const known = this.saved.failed.find(item => item.index === row.index);
    this.showDetail(known ?? { ...row, traceback: '', stdout: '', repr: row.value });
    if (this.ask === null) {
      return;
    }
    try {
      const content = asFields(
        await this.ask('nbscale_outcome_request', { run_id: this.run.id, index: row.index })
      );
      if (this.opened === row.index && !this.disposed) {
        this.showDetail(parseDetail(content['outcome']));
      }
    } catch (error) {
      this.tell(error);
    }
  }

  private close(): void {
    this.opened = null;
    this.detail.hidden = true;
    this.detail.replaceChildren();
    this.drawRows();
  }

  private showDetail(detail: Detail): void {
    const head = make('div', 'nbs-detail-head');
    const close = make('button', 'nbs-button', 'Close');
    close.type = 'button';
    close.addEventListener('click', () => {
      this.close();
    });
    const attempts = detail.attempts > 1 ? `${detail.attempts} attempts` : '';
    head.append(
      make('strong', '', `Input ${detail.index}`),
      statusBadge(detail.status),
      make('span', 'nbs-text', attempts),
      close
    );
    const parts: HTMLElement[] = [head];
    const sections: [string, string][] = [
      ['Input', detail.input],
      ['Traceback', detail.traceback],
      ['Output', detail.stdout],
      ['Value', detail.status === 'failed' && detail.traceback ? '' : detail.repr || detail.value]
    ];
    for (const [title, text] of sections) {
      if (text) {
        parts.push(make('div', 'nbs-label', title), make('pre', 'nbs-pre', text));
      }
    }
    this.detail.replaceChildren(...parts);
    this.detail.hidden = false;
  }

  private async act(type: string): Promise<void> {
    if (this.ask === null) {
      return;
    }
    try {
      await this.ask(type, { run_id: this.run.id });
      this.refresh();
    } catch (error) {
      this.tell(error);
    }
  }

  private tell(error: unknown): void {
    this.note.textContent = error instanceof Error ? error.message : String(error);
  }

  private refresh(): void {
    if (this.ask === null || this.disposed) {
      return;
    }
    if (this.fetching) {
      this.again = true;
      return;
    }
    const wait = this.lastFetch + REFRESH_MS - Date.now();
    if (wait > 0) {
      clearTimeout(this.timer);
      this.timer = setTimeout(() => void this.fetch(), wait);
    } else {
      void this.fetch();
    }
  }

  private async fetch(): Promise<void> {
    const { ask, generation } = this;
    if (ask === null || this.disposed || this.fetching) {
      return;
    }
    this.fetching = true;
    this.again = false;
    this.lastFetch = Date.now();
    const [first, last] = this.range();
    const start = Math.max(0, first - MARGIN_ROWS);
    try {
      const page = parsePage(
        await ask('nbscale_rows_request', {
          run_id: this.run.id,
          start,
          stop: last + MARGIN_ROWS,
          ...(this.filter === null ? {} : { status: this.filter })
        })
      );
      if (!this.disposed && this.ask === ask && generation === this.generation) {
        this.take(start, page.run, page.total, page.rows);
      }
      this.silences = 0;
    } catch (error: unknown) {
      if (error instanceof NoReplyError && ++this.silences < SILENCES_BORNE) {
        // A kernel that holds the GIL for long is slow, not gone.
        this.again = true;
      } else if (this.ask === ask && !this.disposed) {
        // Another kernel, or none: what the output holds is all that is known.
        this.ask = null;
        this.useSaved();
        this.draw();
      }
    } finally {
      this.fetching = false;
      if (this.again) {
        this.refresh();
      }
    }
  }

  private take(start: number, run: Summary | null, total: number, rows: Row[]): void {
    if (run !== null) {
      this.saved = { ...this.saved, run };
    }
    this.total = total;
    rows.forEach((row, offset) => this.rows.set(start + offset, row));
    // A run of a million rows must not fill the browser: far rows are asked for again.
    if (this.rows.size > 5000) {
      for (const position of this.rows.keys()) {
        if (Math.abs(position - start) > 2000) {
          this.rows.delete(position);
        }
      }
    }
    this.draw();
  }
}
