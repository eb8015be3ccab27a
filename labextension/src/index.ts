/** Wires the panel and the renderer into JupyterLab. */
import { ILayoutRestorer } from '@jupyterlab/application';
import type { JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { INotebookTracker } from '@jupyterlab/notebook';
import { IRenderMimeRegistry } from '@jupyterlab/rendermime';
import { NbscalePanel } from './panel';
import { runRendererFactory } from './renderer';

const RANK = -20;

const outputs: JupyterFrontEndPlugin<void> = {
  id: 'nbscale-lab:outputs',
  description: 'Draws the runs of nbscale in outputs.',
  autoStart: true,
  requires: [IRenderMimeRegistry],
  optional: [INotebookTracker],
  activate: (
    _: JupyterFrontEnd,
    rendermime: IRenderMimeRegistry,
    tracker: INotebookTracker | null
  ) => {
    rendermime.addFactory(runRendererFactory(null), RANK);
    tracker?.widgetAdded.connect((_sender, notebook) => {
      // A registry of the notebook's own: its renderers know which kernel to ask.
      notebook.content.rendermime.addFactory(runRendererFactory(notebook.sessionContext), RANK);
    });
  }
};

const panel: JupyterFrontEndPlugin<void> = {
  id: 'nbscale-lab:panel',
  description: 'Functions and runs of the notebook in front.',
  autoStart: true,
  requires: [INotebookTracker],
  optional: [ILayoutRestorer],
  activate: (
    app: JupyterFrontEnd,
    tracker: INotebookTracker,
    restorer: ILayoutRestorer | null
  ) => {
    const widget = new NbscalePanel(tracker);
    restorer?.add(widget, widget.id);
    app.shell.add(widget, 'left', { rank: 650 });
  }
};

export default [outputs, panel];
