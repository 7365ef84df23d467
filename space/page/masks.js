// The label layers: shown whole, as one class in the light, or as outlines.
(() => {
  const layers = new WeakMap();
  let pinned = null;
  let shown = null;
  let outlined = false;

  const packed = (...channels) => new Uint32Array(Uint8Array.from(channels).buffer)[0];
  const WHITE = packed(255, 255, 255, 255);
  const SHADE = packed(0, 0, 0, 205);

  const buttons = () => [...document.querySelectorAll(".fcn-class")];
  const buttonOf = (name) => buttons().find((button) => button.dataset.name === name);

  // The decoded label layer of one image, read once: RGBA bytes with the size of the image.
  fcn.layer = (image) => {
    // What it held before is no longer its layer.
    if (!image.complete || !image.naturalWidth) return null;
    if (!layers.has(image)) {
      const canvas = document.createElement("canvas");
      canvas.width = image.naturalWidth;
      canvas.height = image.naturalHeight;
      const context = canvas.getContext("2d", { willReadFrequently: true });
      context.drawImage(image, 0, 0);
      layers.set(image, context.getImageData(0, 0, canvas.width, canvas.height));
    }
    return layers.get(image);
  };

  // One class (packed colour) in the light with its outline, or all outlines (null), each in its class's colour.
  function painted({ width, height, data }, colour) {
    const colours = new Uint32Array(data.buffer);
    const areas = colour === null ? colours : colours.map((each) => Number(each === colour));
    const picture = new ImageData(width, height);
    const out = new Uint32Array(picture.data.buffer);
    // Wide enough to be seen where a layer is shown smaller than it is.
    const wide = Math.max(1, Math.round(width / 300));
    for (let p = 0; p < out.length; p++) {
      const left = p % width >= wide ? areas[p - wide] : areas[p];
      const above = p >= wide * width ? areas[p - wide * width] : areas[p];
      if (areas[p] !== left || areas[p] !== above) out[p] = outlined ? (colour ?? colours[p]) : WHITE;
      else if (!outlined && !areas[p]) out[p] = SHADE;
    }
    return picture;
  }

  function draw(plane) {
    plane.querySelector("canvas")?.remove();
    const button = shown === null ? null : buttonOf(shown);
    const image = plane.querySelector(".fcn-mask");
    plane.classList.toggle("fcn-drawn", Boolean(button) || outlined);
    const source = (button || outlined) && fcn.layer(image);
    if (!source) return;
    const colour = button ? packed(...button.dataset.colour.split(","), 255) : null;
    const canvas = document.createElement("canvas");
    canvas.width = source.width;
    canvas.height = source.height;
    canvas.getContext("2d").putImageData(painted(source, colour), 0, 0);
    image.after(canvas);
  }

  // Leave one class in the light, in every panel; null shows all classes.
  function show(name) {
    shown = name;
    document.querySelectorAll(".fcn-results tr[data-name]").forEach((row) => {
      row.classList.toggle("fcn-active", row.dataset.name === name);
    });
    document.querySelectorAll(".fcn-plane").forEach(draw);
  }

  // Keeps one class in the light, if the legend has it; null keeps none.
  fcn.pin = (name) => {
    pinned = name !== null && buttonOf(name) ? name : null;
    buttons().forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.name === pinned)));
    show(pinned);
  };
  fcn.pinned = () => pinned;

  for (const [begin, end] of [
    ["pointerover", "pointerout"],
    ["focusin", "focusout"],
  ]) {
    document.addEventListener(begin, (event) => {
      const button = fcn.within(event, ".fcn-class");
      if (button) show(button.dataset.name);
    });
    document.addEventListener(end, (event) => {
      if (fcn.within(event, ".fcn-class")) show(pinned);
    });
  }
  document.addEventListener("click", (event) => {
    const name = fcn.within(event, ".fcn-class")?.dataset.name;
    if (name !== undefined) fcn.pin(pinned === name ? null : name);
    const outlines = fcn.within(event, "#fcn-outlines");
    if (outlines) {
      outlined = !outlined;
      outlines.setAttribute("aria-pressed", String(outlined));
      show(shown);
    }
  });
  // A class that the new legend lacks can't stay: nothing would show that it is chosen.
  document.addEventListener("fcn:compared", () => fcn.pin(pinned));
  // Load events don't bubble. What an image held before is no longer its layer.
  document.addEventListener(
    "load",
    (event) => {
      const plane = fcn.within(event, ".fcn-plane");
      if (!plane) return;
      layers.delete(event.target);
      draw(plane);
    },
    true,
  );
})();
