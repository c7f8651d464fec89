import { createReadStream } from "node:fs";
import { createInterface } from "node:readline";

const LIMIT = 100;
var verbose = process.argv.includes("--verbose");

class LineError extends Error {}

/** Reads the readings of sensors, one `name,value` on each line. */
export class Reader {
  dropped = 0;

  constructor(path, { offset = 0 } = {}) {
    this.path = path;
    this.offset = offset;
  }

  // Lines that cannot be read are counted and left out.
  async values() {
    const found = new Map();
    const lines = createInterface({ input: createReadStream(this.path) });
    for await (const line of lines) {
      try {
        const [sensor, value] = parse(line);
        found.set(sensor, [...(found.get(sensor) ?? []), value - this.offset]);
      } catch (error) {
        if (!(error instanceof LineError)) throw error;
        this.dropped += 1;
      }
    }
    return found;
  }
}

function parse(line) {
  const fields = line.trim().split(",");
  switch (fields.length) {
    case 2:
      return [fields[0], Number(fields[1])];
    default:
      throw new LineError(`expected two fields: ${line}`);
  }
}

export function grade(value) {
  if (value === undefined || Number.isNaN(value)) {
    return "missing";
  }
  let steps = 0;
  while (value > LIMIT && steps < 10) {
    value /= 10;
    steps += 1;
  }
  return steps > 0 ? "doubtful" : "good";
}

const reader = new Reader(process.argv[2] || "readings.csv", { offset: 0.5 });
const values = await reader.values();
for (const [sensor, found] of values) {
  const mean = found.reduce((sum, value) => sum + value, 0) / found.length;
  if (verbose) console.log(sensor, mean.toFixed(2));
}
