/** The view as an anywidget, for front ends without the labextension. */
import { askKernel, contentOf, REPLY_TIMEOUT_MS, withTimeout } from './kernel';
import type { Ask, ControlKernel } from './kernel';
import { asFields, parseSaved } from './model';
import { RunView } from './view';

/** The part of an anywidget's model that is used. */
export interface WidgetModel {
  get(name: string): unknown;
  on(name: string, callback: (message: unknown) => void): void;
  off(name: string, callback: (message: unknown) => void): void;
  send(content: unknown): void;
  readonly widget_manager?: { readonly kernel?: ControlKernel | null };
}

/** Ask by custom messages, where the front end gives no kernel connection. */
export function askModel(model: WidgetModel): { ask: Ask; dispose: () => void } {
  const waiting = new Map<number, (content: unknown) => void>();
  let last = 0;
  const receive = (message: unknown): void => {
    const fields = asFields(message);
    const id = fields['id'];
    if (typeof id === 'number') {
      waiting.get(id)?.(fields['content']);
    }
  };
  model.on('msg:custom', receive);
  const ask: Ask = async (type, content) => {
    last += 1;
    const id = last;
    const reply = new Promise<unknown>(resolve => waiting.set(id, resolve));
    model.send({ id, type, content });
    try {
      return contentOf(await withTimeout(reply, 5 * REPLY_TIMEOUT_MS));
    } finally {
      waiting.delete(id);
    }
  };
  return {
    ask,
    dispose: () => {
      model.off('msg:custom', receive);
    }
  };
}

function render({ model, el }: { model: WidgetModel; el: HTMLElement }): () => void {
  const saved = parseSaved(model.get('state'));
  if (saved === null) {
    el.textContent = 'This run has no data yet.';
    return () => undefined;
  }
  const kernel = model.widget_manager?.kernel;
  const messages = askModel(model);
  const ask: Ask = kernel
    ? (type, content) => askKernel(kernel, type, content)
    : messages.ask;
  const view = new RunView(saved, ask);
  const update = (): void => {
    const next = parseSaved(model.get('state'));
    if (next !== null) {
      view.updateSaved(next);
    }
  };
  model.on('change:state', update);
  el.append(view.node);
  return () => {
    model.off('change:state', update);
    messages.dispose();
    view.dispose();
  };
}

export default { render };
