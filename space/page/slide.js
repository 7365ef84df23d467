// Any two of picture, masks and truth, the right one uncovered as far as the range input says.
(() => {
  let cut = 50;
  // Place and name of the left and the right one, once the visitor has chosen.
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
        // The picture comes before the panels. Two of them may have one name.
        const panel = panels[select.selectedIndex - 1];
        masks[side].hidden = !panel;
        if (panel) masks[side].src = panel.querySelector(".fcn-mask").src;
        else masks[side].removeAttribute("src");
        if (!panel) masks[side].parentElement.querySelector("canvas")?.remove();
      });
  }

  const part = (event) => fcn.within(event, ".fcn-slide") && event.target;

  document.addEventListener("input", (event) => {
    if (!part(event)?.matches(".fcn-place")) return;
    cut = Number(event.target.value);
    slide().style.setProperty("--cut", cut);
  });
  document.addEventListener("change", (event) => {
    if (!part(event)?.matches("select")) return;
    chosen = [...slide().querySelectorAll("select")].map(({ selectedIndex, value }) => ({ selectedIndex, value }));
    apply();
  });
  document.addEventListener("fcn:compared", () => {
    slide()
      .querySelectorAll("select")
      .forEach((select, side) => {
        const wanted = chosen?.[side];
        if (wanted && select.options[wanted.selectedIndex]?.value === wanted.value) {
          select.selectedIndex = wanted.selectedIndex;
        }
      });
    apply();
  });
})();
