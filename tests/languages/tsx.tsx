import { useEffect, useState } from "react";
import type { ReactNode } from "react";

interface Reading {
  sensor: string;
  value: number;
}

type Quality = "good" | "doubtful" | "missing";

class ReadingError extends Error {
  readonly status: number = 0;
}

// Values outside the scale are doubtful.
export function quality(reading: Reading | undefined, limit = 100): Quality {
  if (reading === undefined) {
    return "missing";
  }
  const inside = Math.abs(reading.value) <= limit;
  return inside ? "good" : "doubtful";
}

function color(of: Quality): string {
  switch (of) {
    case "good":
      return "var(--ink)";
    case "doubtful":
      return "var(--warning)";
    default:
      return `var(--${of})`;
  }
}

export function newest<T>(items: readonly T[], most: number): T[] {
  const kept: T[] = [];
  let index = items.length - 1;
  while (index >= 0 && kept.length < most) {
    kept.push(items[index]!);
    index -= 1;
  }
  for (const item of kept) {
    console.debug(item as unknown);
  }
  return kept;
}

export function ReadingList({ url, children }: { url: string; children?: ReactNode }) {
  const [readings, setReadings] = useState<Reading[]>([]);
  const [problem, setProblem] = useState<string | null>(null);

  useEffect(() => {
    const load = async () => {
      try {
        const response = await fetch(url);
        if (!response.ok) throw new ReadingError(response.statusText);
        setReadings(newest((await response.json()) as Reading[], 20));
      } catch (error) {
        setProblem(String(error));
      }
    };
    void load();
  }, [url]);

  return (
    <section aria-label="Readings">
      {problem && <p role="alert">{problem}</p>}
      {readings.map((reading) => (
        <span key={reading.sensor} style={{ color: color(quality(reading)) }}>
          {reading.sensor}: {reading.value.toFixed(1)}
        </span>
      ))}
      {children}
    </section>
  );
}
