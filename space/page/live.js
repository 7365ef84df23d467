// The camera's one button, which Gradio calls "capture photo" whatever it does: its text says whether it starts or stops.
(() => {
  const button = () => document.querySelector("#fcn-camera .capture-button");

  new MutationObserver(() => button()?.removeAttribute("aria-label")).observe(document.documentElement, {
    childList: true,
    subtree: true,
  });

  window.fcnStopCamera = () => button()?.click();
})();
