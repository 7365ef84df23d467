// What every network sees at one pixel: where the mouse is, or at a place that a click, a tap or the arrow keys keep.
(() => {
  // [x, y] in pixels of the picture, or null.
  let kept = null;

  const section = () => document.querySelector(".fcn-results");
  const size = () => [Number(section().dataset.width), Number(section().dataset.height)];

  function answer(view, [x, y]) {
    const source = fcn.layer(view.querySelector(".fcn-mask"));
    if (!source) return "";
    const [width, height] = size();
    const column = Math.floor(((x + 0.5) / width) * source.width);
    const row = Math.floor(((y + 0.5) / height) * source.height);
    const [red, green, blue, alpha] = source.data.slice(4 * (row * source.width + column));
    if (!alpha) return view.dataset.otherwise;
    const own = view.closest("figure").querySelectorAll("[data-colour]");
    const named = [...(own.length ? own : document.querySelectorAll(".fcn-class"))];
    return named.find((each) => each.dataset.colour === `${red},${green},${blue}`)?.dataset.name ?? "";
  }

  function show(point) {
    document.querySelectorAll(".fcn-results .fcn-view").forEach((view) => {
      view.classList.toggle("fcn-probed", point !== null);
      const probe = view.querySelector(".fcn-probe");
      if (point && probe) probe.textContent = answer(view, point);
    });
    if (!point) return;
    const [width, height] = size();
    section().style.setProperty("--x", (point[0] + 0.5) / width);
    section().style.setProperty("--y", (point[1] + 0.5) / height);
  }

  // What is kept is also said, on the screen and to screen readers: each panel's answer.
  fcn.keep = (point) => {
    kept = point;
    show(point);
    const answers = [...document.querySelectorAll(".fcn-panel")].map(
      (panel) => `${panel.querySelector("strong").textContent}: ${answer(panel.querySelector(".fcn-view"), point ?? [0, 0])}`,
    );
    section().querySelector(".fcn-said").textContent = point ? `x ${point[0]}, y ${point[1]} · ${answers.join(" · ")}` : "";
  };
  fcn.kept = () => kept;

  function pixelAt(view, event) {
    const sides = size();
    return fcn.placeOf(view, event).map((at, axis) => Math.min(sides[axis] - 1, Math.floor(at * sides[axis])));
  }

  document.addEventListener("pointermove", (event) => {
    const view = event.pointerType === "mouse" && fcn.within(event, ".fcn-results .fcn-view");
    if (view) show(pixelAt(view, event));
  });
  document.addEventListener("pointerout", (event) => {
    if (event.pointerType === "mouse" && fcn.within(event, ".fcn-results .fcn-view")) show(kept);
  });
  document.addEventListener("click", (event) => {
    const view = fcn.within(event, ".fcn-results .fcn-view");
    if (view) fcn.keep(pixelAt(view, event));
  });

  const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  document.addEventListener("keydown", (event) => {
    const view = fcn.within(event, ".fcn-results .fcn-view");
    if (!view || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "Escape") fcn.keep(null);
    const arrow = ARROWS[event.key];
    if (!arrow) return;
    event.preventDefault();
    const sides = size();
    const step = event.shiftKey ? 1 : Math.max(1, Math.round(Math.max(...sides) / 50));
    const from = kept ?? sides.map((side) => Math.floor(side / 2));
    const to = kept ? from.map((at, axis) => at + step * arrow[axis]) : from;
    fcn.keep(to.map((at, axis) => Math.min(sides[axis] - 1, Math.max(0, at))));
    fcn.reveal(kept.map((at, axis) => (at + 0.5) / sides[axis]));
  });
  document.addEventListener("fcn:compared", (event) => {
    if (event.detail.another) kept = null;
  });
  // The same picture in other colours: what is kept is said again once they are there. Load events don't bubble.
  document.addEventListener("load", (event) => kept && fcn.within(event, ".fcn-panel .fcn-mask") && fcn.keep(kept), true);
})();
