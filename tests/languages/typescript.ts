/* @prettier */
import { SchedulerLike } from '../types';

export function throwError(errorOrErrorFactory: any, scheduler?: SchedulerLike): Observable<never> {
  const errorFactory = isFunction(errorOrErrorFactory) ? errorOrErrorFactory : () => errorOrErrorFactory;
  const init = (subscriber: Subscriber<never>) => subscriber.error(errorFactory());
  return new Observable(scheduler ? (subscriber) => scheduler.schedule(init as any, 0, subscriber) : init);
}

export type NodeEventHandler = (...args: any[]) => void;

export function fromIterable<T>(iterable: Iterable<T>) {
  return new Observable((subscriber: Subscriber<T>) => {
    for (const value of iterable) {
      subscriber.next(value);
      if (subscriber.closed) {
        return;
      }
    }
    subscriber.complete();
  });
}

/**
 * @deprecated Replaced with the {@link NEVER} constant. Will be removed in v8.
 */
export function never() {
  return NEVER;
}

// Written for this test.
export function drain<T>(queue: T[], kind: 'first' | 'last', observer: { next(value: T): void }) {
  let failures = 0;
  while (queue.length > 0) {
    try {
      switch (kind) {
        case 'first':
          observer.next(queue.shift()!);
          break;
        default:
          observer.next(queue.pop()!);
      }
    } catch (error) {
      console.warn(`${failures} failures before`, error);
      failures += 1;
    }
  }
  return failures;
}
