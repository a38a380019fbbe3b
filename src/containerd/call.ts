import {
  type ServerUnaryCall,
  type ServerWritableStream,
  type handleServerStreamingCall,
  type handleUnaryCall,
  status,
} from '@grpc/grpc-js';
import { guarded } from '../guarded.ts';
import { type CallStatus, toStatus } from './status.ts';

/** The longest that a timer can wait, in milliseconds. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** The reason of the signal of a call whose client does not wait for the answer any more. */
class Abandoned extends Error {
  override readonly name = 'Abandoned';
  readonly status: CallStatus;

  constructor(code: status.CANCELLED | status.DEADLINE_EXCEEDED) {
    const details = code === status.CANCELLED ? 'the client has cancelled it' : 'its deadline has passed';
    super(details);
    this.status = { code, details };
  }
}

/** Follows a call: the signal is aborted when the client is gone or has given up. */
function follow(
  call: ServerUnaryCall<unknown, unknown> | ServerWritableStream<unknown, unknown>,
): Disposable & { readonly signal: AbortSignal } {
  const abandoned = new AbortController();
  const deadline = Number(call.getDeadline());
  const abort = guarded(() => {
    const code = Date.now() >= deadline ? status.DEADLINE_EXCEEDED : status.CANCELLED;
    abandoned.abort(new Abandoned(code));
  });
  if (call.cancelled || Date.now() >= deadline) abort();
  call.once('cancelled', abort);
  // If the client does not read, the library does not notice that the deadline has passed.
  const wait = deadline - Date.now();
  const timer = wait < MAX_TIMER_MS ? setTimeout(abort, Math.max(wait, 0)) : undefined;
  return {
    signal: abandoned.signal,
    [Symbol.dispose]() {
      clearTimeout(timer);
      call.off('cancelled', abort);
    },
  };
}

function toCallStatus(error: unknown, doing: string): CallStatus {
  return error instanceof Abandoned ? error.status : toStatus(error, doing);
}

/** Answers a request with the result of `answer`, which is not called if the client has given up already. */
export function unary<Request, Response>(
  doing: string,
  answer: (request: Request, signal: AbortSignal) => Promise<Response>,
): handleUnaryCall<Request, Response> {
  return (call, respond) => {
    const run = async (): Promise<Response> => {
      using following = follow(call);
      following.signal.throwIfAborted();
      return await answer(call.request, following.signal);
    };
    run().then(
      guarded((response) => respond(null, response)),
      guarded((error: unknown) => respond(toCallStatus(error, doing))),
    );
  };
}

/** Answers a request with the messages that `answer` yields, as fast as the client takes them. */
export function streaming<Request, Response>(
  doing: string,
  answer: (request: Request, signal: AbortSignal) => AsyncIterable<Response>,
): handleServerStreamingCall<Request, Response> {
  return (call) => {
    const run = async (): Promise<void> => {
      using following = follow(call);
      const { signal } = following;
      signal.throwIfAborted();
      for await (const message of answer(call.request, signal)) {
        signal.throwIfAborted();
        await send(call, message, signal);
      }
      signal.throwIfAborted();
    };
    run().then(
      guarded(() => {
        call.end();
      }),
      guarded((error: unknown) => {
        call.emit('error', toCallStatus(error, doing));
      }),
    );
  };
}

/** Sends a message, and waits until the client has room for more, or is gone. */
function send<Response>(
  call: ServerWritableStream<unknown, Response>,
  message: Response,
  signal: AbortSignal,
): Promise<void> {
  return new Promise((resolve, reject) => {
    const onAbort = (): void => reject(signal.reason as Error);
    signal.addEventListener('abort', onAbort, { once: true });
    // If the client is gone, nothing is sent and this is not called.
    call.write(message, () => {
      signal.removeEventListener('abort', onAbort);
      resolve();
    });
  });
}
