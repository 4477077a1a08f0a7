// JSON objects from elsewhere, by one rule in Python (strict_json.py), in Kotlin (StrictJson.kt) and
// here: RFC 8259's, in UTF-8 without a byte order mark, at most 64 levels deep.

const LEVELS = 64;

/**
 * @param {string | Uint8Array} text
 * @returns {object | null} null if it is no JSON object
 */
export function parseObject(text) {
  try {
    const found = JSON.parse(typeof text === "string" ? text : UTF8().decode(text));
    return isObject(found) && isFlat(found, LEVELS) ? found : null;
  } catch {
    return null;
  }
}

export const isObject = (value) =>
  typeof value === "object" && value !== null && !Array.isArray(value);

const UTF8 = () => new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

const isFlat = (value, levels) =>
  typeof value !== "object" ||
  value === null ||
  (levels > 0 && Object.values(value).every((inner) => isFlat(inner, levels - 1)));
