// Saves files: what the server has made, and what a panel shows.
(() => {
  function save(address, name) {
    const link = document.createElement("a");
    link.href = address;
    link.download = name;
    link.click();
  }

  window.fcnSave = (file) => {
    if (file) save(file.url, file.orig_name ?? "masks.zip");
  };

  const decoded = async (address) => {
    const image = new Image();
    image.src = address;
    await image.decode();
    return image;
  };

  // The picture below a panel's layer, as it is shown: its colours at the opacity chosen, one class, or outlines.
  async function overlay(plane) {
    const mask = plane.querySelector(".fcn-mask");
    await mask.decode();
    const canvas = document.createElement("canvas");
    canvas.width = mask.naturalWidth;
    canvas.height = mask.naturalHeight;
    const context = canvas.getContext("2d");
    const photo = getComputedStyle(plane).backgroundImage.slice('url("'.length, -'")'.length);
    context.drawImage(await decoded(photo), 0, 0, canvas.width, canvas.height);
    const drawn = plane.querySelector("canvas");
    if (!drawn) context.globalAlpha = Number(getComputedStyle(mask).opacity);
    context.drawImage(drawn ?? mask, 0, 0, canvas.width, canvas.height);
    return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
  }

  // Of a picture that is shown at its own size, the label map is what is shown; the server makes that of a larger one.
  document.addEventListener("click", (event) => {
    const button = fcn.within(event, ".fcn-download");
    if (!button) return;
    const panel = button.closest(".fcn-panel");
    const { width, height } = button.closest(".fcn-results").dataset;
    const { naturalWidth, naturalHeight, src } = panel.querySelector(".fcn-mask");
    if (naturalWidth === Number(width) && naturalHeight === Number(height)) {
      save(src, button.dataset.name);
      return;
    }
    fcn.panelToSave = panel.querySelector("strong").textContent;
    document.querySelector("#fcn-label-map").click();
  });

  document.addEventListener("click", async (event) => {
    const button = fcn.within(event, ".fcn-overlay");
    if (!button) return;
    const address = URL.createObjectURL(await overlay(button.closest(".fcn-panel").querySelector(".fcn-plane")));
    save(address, button.dataset.name);
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
  });
})();
