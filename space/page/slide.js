// Any two of picture, masks and truth, the right one uncovered as far as the range input says.
(() => {
  let cut = 50;
  // Names of the left and the right one, once the visitor has chosen.
  let chosen = null;

  const slide = () => document.querySelector(".fcn-slide");

  function apply() {
    const panels = [...document.querySelectorAll(".fcn-panel")];
    const masks = [...slide().querySelectorAll(".fcn-mask")];
    slide().style.setProperty("--cut", cut);
    slide().querySelector(".fcn-place").value = cut;
    slide()
      .querySelectorAll("select")
      .forEach((select, side) => {
        const panel = panels.find((each) => each.querySelector("strong").textContent === select.value);
        masks[side].hidden = !panel;
        if (panel) masks[side].src = panel.querySelector(".fcn-mask").src;
        else masks[side].removeAttribute("src");
        if (!panel) masks[side].parentElement.querySelector("canvas")?.remove();
      });
  }

  const part = (event) => (event.target instanceof Element && event.target.closest(".fcn-slide") ? event.target : null);

  document.addEventListener("input", (event) => {
    if (!part(event)?.matches(".fcn-place")) return;
    cut = Number(event.target.value);
    slide().style.setProperty("--cut", cut);
  });
  document.addEventListener("change", (event) => {
    if (!part(event)?.matches("select")) return;
    chosen = [...slide().querySelectorAll("select")].map((select) => select.value);
    apply();
  });
  document.addEventListener("fcn:compared", () => {
    slide()
      .querySelectorAll("select")
      .forEach((select, side) => {
        const wanted = chosen && [...select.options].some((option) => option.value === chosen[side]);
        if (wanted) select.value = chosen[side];
      });
    apply();
  });
})();
