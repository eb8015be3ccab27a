/** Talks with the kernel over its control channel, which answers while a cell is busy. */
import { asFields, asText } from './model';

/** Without a handler in the kernel a request never settles: that nbscale is not loaded shows so. */
export const REPLY_TIMEOUT_MS = 2000;

/** The part of JupyterLab's kernel connection that is used; widget managers offer the same. */
export interface ControlKernel {
  readonly username: string;
  readonly clientId: string;
  sendControlMessage(message: never, expectReply: boolean): { readonly done: Promise<unknown> };
}

/** How a view asks: a function from a request to the content of its reply. */
export type Ask = (type: string, content: Record<string, unknown>) => Promise<unknown>;

/** The kernel did not answer: nbscale is not loaded there, or it restarts. */
export class NoReplyError extends Error {}

/** Wait for a promise for a bounded time. */
export async function withTimeout<T>(promise: Promise<T>, milliseconds: number): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const timeout = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(new NoReplyError('The kernel did not answer.'));
    }, milliseconds);
  });
  try {
    return await Promise.race([promise, timeout]);
  } finally {
    clearTimeout(timer);
  }
}

/** The content of a reply; a reply that tells of an error is thrown. */
export function contentOf(content: unknown): unknown {
  const fields = asFields(content);
  if (fields['status'] === 'error') {
    throw new Error(asText(fields['message']) || 'The kernel refused the request.');
  }
  return content;
}

/** Ask the kernel; rejects after two seconds of silence. */
export async function askKernel(
  kernel: ControlKernel,
  type: string,
  content: Record<string, unknown>,
  milliseconds = REPLY_TIMEOUT_MS
): Promise<unknown> {
  const message = {
    header: {
      date: new Date().toISOString(),
      msg_id: crypto.randomUUID?.() ?? `nbscale-${Date.now()}-${Math.random()}`,
      msg_type: type,
      session: kernel.clientId,
      username: kernel.username,
      version: '5.3'
    },
    parent_header: {},
    metadata: {},
    buffers: [],
    channel: 'control',
    content
  };
  const future = kernel.sendControlMessage(message as never, true);
  const reply = await withTimeout(future.done, milliseconds);
  return contentOf(asFields(reply)['content']);
}
