// Refuses files that are not videos, or too large, with a sentence below the input. gradio would show its own message.
function checkFiles(event) {
  const clip = event.target.closest?.(".adaptok-clip");
  const file = (event.dataTransfer ?? event.target).files?.[0];
  if (!clip || !file) return;
  const message = document.querySelector(`#${clip.id.replace("-clip", "-refusal")} p`);
  const { bytes, kind, size } = message.dataset;
  const reason = !file.type.startsWith("video/") ? kind : file.size > Number(bytes) ? size : "";
  message.hidden = !reason;
  if (!reason) return;
  message.textContent = `${file.name}: ${reason}`;
  event.preventDefault();
  event.stopImmediatePropagation();
  if (event.type === "drop") event.target.dispatchEvent(new DragEvent("dragleave", { bubbles: true }));
  else event.target.value = ""; // the same file can be chosen again
}

function hideRefusals(event) {
  if (!event.target.closest?.("button")) return;
  for (const message of document.querySelectorAll(".adaptok-refusal p")) message.hidden = true;
}

for (const type of ["change", "drop"]) addEventListener(type, checkFiles, true);
addEventListener("click", hideRefusals, true);
