// A click or a tap on an explained picture fills in the numbers of the pixel there, and asks about it.
(() => {
  window.fcnRefresh = (path) => {
    const selector = path === fcn.picture ? ".fcn-recolour" : ".fcn-refresh";
    fcn.picture = path;
    const buttons = [...document.querySelectorAll(selector)];
    buttons.find((button) => button.closest(".fcn-tab")?.offsetParent)?.click();
  };

  function fill(selector, number) {
    const field = document.querySelector(`${selector} input`);
    field.value = number;
    field.dispatchEvent(new Event("input", { bubbles: true }));
  }

  document.addEventListener("click", (event) => {
    const view = fcn.within(event, ".fcn-ask-view");
    if (!view) return;
    const box = view.getBoundingClientRect();
    const pixel = (share, count) => Math.min(count - 1, Math.max(0, Math.floor(share * count)));
    fill("#fcn-x", pixel((event.clientX - box.left) / box.width, Number(view.dataset.width)));
    fill("#fcn-y", pixel((event.clientY - box.top) / box.height, Number(view.dataset.height)));
    document.querySelector("#fcn-ask button.fcn-refresh").click();
  });
})();
