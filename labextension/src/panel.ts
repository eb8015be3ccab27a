/** The sidebar: functions and runs of the notebook in front. */
import type { INotebookTracker, NotebookPanel } from '@jupyterlab/notebook';
import type { Kernel } from '@jupyterlab/services';
import { LabIcon } from '@jupyterlab/ui-components';
import { Widget } from '@lumino/widgets';
import { NoReplyError } from './kernel';
import { parseState, parseSummary } from './model';
import type { FunctionInfo, KernelState, Summary } from './model';
import { askOf, listenToRuns } from './renderer';
import { make, RunHeader } from './view';

const icon = new LabIcon({
  name: 'nbscale:panel',
  svgstr:
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24" width="16">' +
    '<g class="jp-icon3" fill="#616161"><rect x="3" y="4" width="18" height="4" rx="1"/>' +
    '<rect x="3" y="10" width="12" height="4" rx="1"/>' +
    '<rect x="3" y="16" width="7" height="4" rx="1"/></g></svg>'
});

interface RunEntry {
  node: HTMLElement;
  header: RunHeader;
}

/** Shows what the kernel of the notebook in front can scale, and what it is doing. */
export class NbscalePanel extends Widget {
  private readonly body = make('div', 'nbs-panel-body');
  private readonly message = make('div', 'nbs-panel-message');
  private readonly functions = make('div', 'nbs-functions');
  private readonly runs = make('div', 'nbs-runs');
  private readonly entries = new Map<string, RunEntry>();
  private notebook: NotebookPanel | null = null;
  private kernel: Kernel.IKernelConnection | null = null;
  private stop: (() => void) | null = null;
  /** What the function list was drawn from: a field being edited is not drawn anew. */
  private drawn = '';

  constructor(private readonly tracker: INotebookTracker) {
    super();
    this.id = 'nbscale-panel';
    this.title.icon = icon;
    this.title.caption = 'nbscale';
    this.title.label = '';
    this.addClass('nbs-panel');
    this.message.setAttribute('role', 'status');
    this.body.append(
      make('h3', 'nbs-section', 'Functions'),
      this.functions,
      make('h3', 'nbs-section', 'Runs'),
      this.runs
    );
    this.node.append(make('h2', 'nbs-heading', 'nbscale'), this.message, this.body);
    tracker.currentChanged.connect(this.follow, this);
    this.follow();
  }

  override dispose(): void {
    if (this.isDisposed) {
      return;
    }
    this.tracker.currentChanged.disconnect(this.follow, this);
    this.leave();
    super.dispose();
  }

  protected override onAfterShow(): void {
    void this.load();
  }

  private leave(): void {
    const session = this.notebook?.sessionContext;
    session?.kernelChanged.disconnect(this.connect, this);
    session?.statusChanged.disconnect(this.onStatus, this);
    this.stop?.();
    this.stop = null;
    this.notebook = null;
    this.kernel = null;
  }

  private follow(): void {
    const notebook = this.tracker.currentWidget;
    if (notebook !== this.notebook) {
      this.leave();
      this.notebook = notebook;
      notebook?.sessionContext.kernelChanged.connect(this.connect, this);
      notebook?.sessionContext.statusChanged.connect(this.onStatus, this);
    }
    this.connect();
  }

  private connect(): void {
    this.stop?.();
    this.stop = null;
    this.kernel = this.notebook?.sessionContext.session?.kernel ?? null;
    if (this.kernel !== null) {
      this.stop = listenToRuns(this.kernel, event => {
        const run = parseSummary(event['run']);
        if (run !== null && this.entries.has(run.id)) {
          this.drawRun(run);
        } else {
          void this.load();
        }
      });
    }
    void this.load();
  }

  private onStatus(_: unknown, status: Kernel.Status): void {
    // After a restart, and after a cell that may have loaded nbscale, what is shown may be old.
    if (status === 'restarting' || status === 'autorestarting') {
      this.showMessage('The kernel restarts.');
    } else if (status === 'idle') {
      void this.load();
    }
  }

  private async load(): Promise<void> {
    const { kernel } = this;
    if (kernel === null) {
      this.showMessage('Open a notebook to see its functions and runs.');
      return;
    }
    try {
      const state = parseState(await askOf(kernel)('nbscale_state_request', {}));
      if (this.kernel === kernel) {
        this.drawState(state);
      }
    } catch (error) {
      if (this.kernel === kernel) {
        this.showMessage(
          error instanceof NoReplyError
            ? 'nbscale is not loaded in this kernel. Run this in a cell:'
            : 'The kernel cannot be asked now.',
          error instanceof NoReplyError ? '%load_ext nbscale' : ''
        );
      }
    }
  }

  private showMessage(text: string, code = ''): void {
    this.message.replaceChildren(make('p', '', text));
    if (code) {
      this.message.append(make('code', 'nbs-code', code));
    }
    this.message.hidden = false;
    this.body.hidden = true;
    this.drawn = '';
    this.entries.clear();
    this.functions.replaceChildren();
    this.runs.replaceChildren();
  }

  private drawState(state: KernelState): void {
    this.message.hidden = true;
    this.body.hidden = false;
    const key = JSON.stringify(state.functions);
    if (key !== this.drawn) {
      this.drawn = key;
      this.functions.replaceChildren(
        ...(state.functions.length > 0
          ? state.functions.map(info => this.makeFunction(info))
          : [make('p', 'nbs-hint', 'None yet: put %%remote_function above a cell.')])
      );
    }
    const ids = new Set(state.runs.map(run => run.id));
    for (const [id, entry] of this.entries) {
      if (!ids.has(id)) {
        entry.node.remove();
        this.entries.delete(id);
      }
    }
    state.runs.forEach(run => {
      this.drawRun(run);
    });
    this.runs.replaceChildren(
      ...(state.runs.length > 0
        ? state.runs.map(run => this.entries.get(run.id)?.node ?? '')
        : [make('p', 'nbs-hint', 'None yet.')])
    );
  }

  private makeFunction(info: FunctionInfo): HTMLElement {
    const node = make('div', 'nbs-function');
    const text = make('div', 'nbs-function-text');
    const name = make('span', 'nbs-name', info.name);
    const signature = make('span', 'nbs-signature', info.signature.replace(/^[^(]*/, ''));
    text.append(name, signature);
    text.title = info.signature;
    if (info.options.length > 0) {
      text.append(
        make('div', 'nbs-hint', info.options.map(([key, value]) => `${key} ${value}`).join(' · '))
      );
    }
    const label = make('label', 'nbs-limit');
    const input = make('input', 'nbs-input');
    input.type = 'number';
    input.min = '1';
    input.step = '1';
    input.value = String(info.limit);
    input.setAttribute('aria-label', `Limit of ${info.name}`);
    input.addEventListener('change', () => void this.setLimit(info.name, input));
    label.append(make('span', 'nbs-hint', 'limit'), input);
    node.append(text, label);
    return node;
  }

  private async setLimit(name: string, input: HTMLInputElement): Promise<void> {
    const limit = Number(input.value);
    const valid = Number.isInteger(limit) && limit >= 1;
    input.setCustomValidity(valid ? '' : 'A whole number, at least 1');
    if (!valid) {
      input.reportValidity();
      return;
    }
    await this.act('nbscale_limit_request', { function: name, limit });
  }

  private drawRun(run: Summary): void {
    let entry = this.entries.get(run.id);
    if (entry === undefined) {
      const header = new RunHeader(type => void this.act(type, { run_id: run.id }));
      const node = make('div', 'nbs-run');
      node.dataset['runId'] = run.id;
      node.append(header.node);
      entry = { node, header };
      this.entries.set(run.id, entry);
    }
    entry.node.dataset['status'] = run.status;
    entry.header.update(run, true);
  }

  private async act(type: string, content: Record<string, unknown>): Promise<void> {
    if (this.kernel === null) {
      return;
    }
    try {
      await askOf(this.kernel)(type, content);
    } catch (error) {
      this.message.replaceChildren(
        make('p', '', error instanceof Error ? error.message : String(error))
      );
      this.message.hidden = false;
      return;
    }
    // The kernel's own numbers, whatever the field says.
    this.drawn = '';
    await this.load();
  }
}
