// The workflow that ComfyUI writes into the PNG files it saves: a text chunk called "prompt".

const signature = [137, 80, 78, 71, 13, 10, 26, 10];

// workflowOf returns the text of the workflow in a PNG file, null where there is none.
export function workflowOf(buffer) {
  const bytes = new Uint8Array(buffer);
  if (signature.some((b, i) => bytes[i] !== b)) return null;
  const view = new DataView(buffer);
  for (let at = 8; at + 12 <= bytes.length; ) {
    const length = view.getUint32(at);
    const kind = String.fromCharCode(...bytes.subarray(at + 4, at + 8));
    const data = bytes.subarray(at + 8, at + 8 + length);
    if (kind === "IDAT" || kind === "IEND") break; // ComfyUI writes its texts before the picture
    if (kind === "tEXt" || kind === "iTXt") {
      const end = data.indexOf(0);
      if (end > 0 && new TextDecoder("latin1").decode(data.subarray(0, end)) === "prompt") return textOf(kind, data.subarray(end + 1));
    }
    at += length + 12;
  }
  return null;
}

function textOf(kind, data) {
  if (kind === "tEXt") return new TextDecoder("latin1").decode(data);
  if (data[0] !== 0) return null; // compressed
  const language = data.indexOf(0, 2);
  const translated = data.indexOf(0, language + 1);
  return new TextDecoder().decode(data.subarray(translated + 1));
}
