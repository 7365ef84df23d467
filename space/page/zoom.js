// One zoom and pan for all panels: wheel, pinch, drag, keys and buttons.
(() => {
  const MOST = 16;
  const STEP = 1.5;
  // A press that moves further than this many CSS pixels is a drag, not a click.
  const SLACK = 5;
  let zoom = 1;
  // Where the picture's left top corner lies, in widths and heights of a panel.
  let pan = [0, 0];
  const pressed = new Map();
  let dragged = 0;

  const clamped = (value, least, most) => Math.min(most, Math.max(least, value));

  function apply() {
    pan = pan.map((offset) => clamped(offset, 1 - zoom, 0));
    const root = document.documentElement;
    root.style.setProperty("--zoom", zoom);
    root.style.setProperty("--pan-x", pan[0]);
    root.style.setProperty("--pan-y", pan[1]);
    root.classList.toggle("fcn-zoomed", zoom > 1);
    const shown = document.querySelector("#fcn-zoom");
    if (shown) shown.textContent = `${Math.round(zoom * 100)} %`;
  }

  // Keeps in place what lies at `centre`, in widths and heights of a panel.
  function zoomBy(factor, centre = [0.5, 0.5]) {
    const before = zoom;
    zoom = clamped(zoom * factor, 1, MOST);
    pan = pan.map((offset, axis) => centre[axis] - ((centre[axis] - offset) * zoom) / before);
    apply();
  }

  function reset() {
    zoom = 1;
    pan = [0, 0];
    apply();
  }

  function inPanel(view, x, y) {
    const box = view.getBoundingClientRect();
    return [(x - box.left) / box.width, (y - box.top) / box.height];
  }

  // The place in the picture at a point of the screen, 0..1 from its left and top.
  fcn.placeOf = (view, { clientX, clientY }) =>
    inPanel(view, clientX, clientY).map((at, axis) => clamped((at - pan[axis]) / zoom, 0, 1));

  // Pans as little as shows a place of the picture.
  fcn.reveal = (place) => {
    pan = pan.map((offset, axis) => clamped(offset, -place[axis] * zoom, 1 - place[axis] * zoom));
    apply();
  };

  const ACTIONS = {
    "fcn-zoom-in": () => zoomBy(STEP),
    "fcn-zoom-out": () => zoomBy(1 / STEP),
    "fcn-zoom-whole": reset,
  };
  document.addEventListener("click", (event) => ACTIONS[fcn.within(event, "button")?.id]?.());

  document.addEventListener("keydown", (event) => {
    if (!fcn.within(event, ".fcn-view") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === "+" || event.key === "=") zoomBy(STEP);
    else if (event.key === "-") zoomBy(1 / STEP);
    else if (event.key === "0") reset();
  });

  // Without Ctrl, the wheel scrolls the page over a panel that nobody has chosen.
  document.addEventListener(
    "wheel",
    (event) => {
      const view = fcn.within(event, ".fcn-view");
      if (!view || !(event.ctrlKey || event.metaKey || view === document.activeElement)) return;
      event.preventDefault();
      zoomBy(2 ** (-event.deltaY / (event.deltaMode ? 10 : 300)), inPanel(view, event.clientX, event.clientY));
    },
    { passive: false },
  );

  const middle = (points, axis) => points.reduce((sum, point) => sum + point[axis], 0) / points.length;
  const spread = ([a, b]) => (b ? Math.max(1, Math.hypot(a[0] - b[0], a[1] - b[1])) : 1);

  document.addEventListener("pointerdown", (event) => {
    const view = fcn.within(event, ".fcn-view");
    if (!view || event.button !== 0) return;
    if (!pressed.size) dragged = 0;
    pressed.set(event.pointerId, [event.clientX, event.clientY]);
  });
  document.addEventListener("pointermove", (event) => {
    const view = fcn.within(event, ".fcn-view");
    if (!view || !pressed.has(event.pointerId)) return;
    const before = [...pressed.values()];
    pressed.set(event.pointerId, [event.clientX, event.clientY]);
    const after = [...pressed.values()];
    const box = view.getBoundingClientRect();
    const moved = [0, 1].map((axis) => middle(after, axis) - middle(before, axis));
    dragged += Math.hypot(...moved);
    if (after.length > 1) dragged = Infinity;
    if (dragged <= SLACK) return;
    pan = [pan[0] + moved[0] / box.width, pan[1] + moved[1] / box.height];
    zoomBy(spread(after) / spread(before), inPanel(view, middle(after, 0), middle(after, 1)));
  });
  for (const end of ["pointerup", "pointercancel"]) {
    document.addEventListener(end, (event) => pressed.delete(event.pointerId));
  }
  // The click that ends a drag points at nothing.
  document.addEventListener(
    "click",
    (event) => {
      if (dragged > SLACK && fcn.within(event, ".fcn-view")) event.stopImmediatePropagation();
      dragged = 0;
    },
    true,
  );
  document.addEventListener("fcn:compared", (event) => (event.detail.another ? reset() : apply()));
})();
