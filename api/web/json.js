// JSON whose numbers keep their digits. Seeds have up to 64 bits and JavaScript's numbers have 53; and 1.0 is no 1 to Python.

// Digits is a number that JavaScript would write in another way.
export class Digits {
  constructor(text) {
    this.text = text;
  }

  toString() {
    return this.text;
  }
}

const tokens = /"(?:[^"\\]|\\.)*"|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;
const number = /^-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?$/;

// A mark that no document can know stands for a number while JSON.parse and JSON.stringify are at work.
const mark = `${[...crypto.getRandomValues(new Uint32Array(3))].join("-")}:`;
const marked = new RegExp(`"${mark}([^"]*)"`, "g");

// parse reads JSON; it throws a SyntaxError with the parser's words.
export function parse(text) {
  JSON.parse(text);
  const safe = text.replace(tokens, (token) => (token[0] === '"' || String(Number(token)) === token ? token : `"${mark}${token}"`));
  return JSON.parse(safe, (_, value) => (typeof value === "string" && value.startsWith(mark) ? new Digits(value.slice(mark.length)) : value));
}

// stringify writes what parse has read.
export function stringify(value, indent) {
  const text = JSON.stringify(value, (_, v) => (v instanceof Digits ? mark + v.text : v), indent);
  return text.replace(marked, (_, digits) => digits);
}

// numberOf makes a number of what a person has typed, and null of what is none.
export function numberOf(text) {
  const trimmed = text.trim();
  if (!number.test(trimmed)) return null;
  return String(Number(trimmed)) === trimmed ? Number(trimmed) : new Digits(trimmed);
}

export const isNumber = (value) => typeof value === "number" || value instanceof Digits;
