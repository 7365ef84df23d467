// Saves files: a zip that the server has made, and what a panel shows.
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

  document.addEventListener("click", async (event) => {
    const button = fcn.within(event, ".fcn-overlay");
    if (!button) return;
    const address = URL.createObjectURL(await overlay(button.closest(".fcn-panel").querySelector(".fcn-plane")));
    save(address, button.dataset.name);
    setTimeout(() => URL.revokeObjectURL(address), 60_000);
  });
})();
