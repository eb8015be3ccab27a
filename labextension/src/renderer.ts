/** Draws a run's output: live while its kernel knows it, from the notebook's data else. */
import type { ISessionContext } from '@jupyterlab/apputils';
import type { IRenderMime } from '@jupyterlab/rendermime-interfaces';
import type { Kernel, KernelMessage } from '@jupyterlab/services';
import { Widget } from '@lumino/widgets';
import { askKernel } from './kernel';
import type { Ask } from './kernel';
import { asFields, MIME_TYPE, parseSaved, parseSummary } from './model';
import { RunView } from './view';

/** Hear of the runs of a kernel; returns how to stop listening. */
export function listenToRuns(
  kernel: Kernel.IKernelConnection,
  callback: (content: Readonly<Record<string, unknown>>) => void
): () => void {
  const hear = (_: unknown, message: KernelMessage.IIOPubMessage): void => {
    if ((message.header.msg_type as string) === 'nbscale_event') {
      callback(asFields(message.content));
    }
  };
  kernel.iopubMessage.connect(hear);
  return () => {
    kernel.iopubMessage.disconnect(hear);
  };
}

/** How to ask a kernel of JupyterLab's. */
export function askOf(kernel: Kernel.IKernelConnection): Ask {
  return (type, content) => askKernel(kernel, type, content);
}

class RunRenderer extends Widget implements IRenderMime.IRenderer {
  private view: RunView | null = null;
  private stop: (() => void) | null = null;

  constructor(private readonly session: ISessionContext | null) {
    super();
    this.addClass('nbs-output');
    session?.kernelChanged.connect(this.connect, this);
  }

  renderModel(model: IRenderMime.IMimeModel): Promise<void> {
    const saved = parseSaved(model.data[MIME_TYPE]);
    if (saved === null) {
      this.node.textContent = 'This output holds no run.';
    } else if (this.view !== null && this.view.run.id === saved.run.id) {
      this.view.updateSaved(saved);
    } else {
      this.view?.dispose();
      this.view = new RunView(saved, null);
      this.node.replaceChildren(this.view.node);
      this.connect();
    }
    return Promise.resolve();
  }

  override dispose(): void {
    if (this.isDisposed) {
      return;
    }
    this.stop?.();
    this.session?.kernelChanged.disconnect(this.connect, this);
    this.view?.dispose();
    super.dispose();
  }

  private connect(): void {
    this.stop?.();
    this.stop = null;
    const kernel = this.session?.session?.kernel;
    const view = this.view;
    if (!kernel || view === null) {
      view?.setAsk(null);
      return;
    }
    this.stop = listenToRuns(kernel, event => {
      const run = parseSummary(event['run']);
      if (run !== null && run.id === view.run.id) {
        view.update(run);
      }
    });
    view.setAsk(askOf(kernel));
  }
}

/** The factory for the outputs of one notebook, or of documents without a kernel. */
export function runRendererFactory(session: ISessionContext | null): IRenderMime.IRendererFactory {
  return {
    // The view writes text only, so that an untrusted notebook may show it.
    safe: true,
    mimeTypes: [MIME_TYPE],
    // Before the widget's own output, which a saved notebook could not show again.
    defaultRank: -20,
    createRenderer: () => new RunRenderer(session)
  };
}
