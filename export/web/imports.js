// In the head of both pages, before their modules: where LiteRT.js is, and what to say if it is not.

const imports = {
  "@litertjs/core": "./node_modules/@litertjs/core/dist/index.js",
  "@litertjs/wasm-utils": "./node_modules/@litertjs/wasm-utils/dist/index.js",
};
const map = document.createElement("script");
map.type = "importmap";
map.textContent = JSON.stringify({ imports });
document.currentScript.after(map);

/** Called where a page's module cannot be loaded. */
function scriptsMissing() {
  const line = document.getElementById("model-line");
  line.textContent =
    "The page's scripts cannot be loaded: run npm install in its folder and serve it, see README.md.";
  line.classList.add("error");
}
