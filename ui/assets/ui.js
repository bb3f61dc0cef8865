// Uploads in pieces, which go on after a break or a reload; and what to do when the session ended.
// All pages work without it.
"use strict";

// A piece must pass every proxy on the way: 1 MiB is the usual limit.
const PIECE = 1 << 20;
const PAUSE_MAX = 15000;

document.addEventListener("htmx:responseError", (event) => {
  if (event.detail.xhr.status === 401) location.reload();
});

const pause = (milliseconds) => new Promise((done) => setTimeout(done, milliseconds));

// The words of a page that says why something was refused.
async function reason(answer) {
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  const said = page.querySelector(".error");
  return said ? said.textContent.trim() : `HTTP status ${answer.status}`;
}

class Refused extends Error {}

// Whether the same request may work later. A piece at another place than the expected one is asked for again.
const passing = (status) => status === 408 || status === 409 || status === 429 || status >= 500;

async function upload(form, say) {
  const file = form.elements.file.files[0];
  const key = `upload:${form.elements.name.value}:${file.name}:${file.size}:${file.lastModified}`;
  let place = localStorage.getItem(key);
  let offset = null;
  for (let wait = 500; ; ) {
    try {
      if (place && offset === null) {
        const head = await fetch(place, { method: "HEAD" });
        if (head.ok) offset = Number(head.headers.get("Upload-Offset"));
        else if (passing(head.status)) throw new Error(`HTTP status ${head.status}`);
        else place = null;
      }
      if (!place) {
        const fields = new URLSearchParams();
        for (const name of ["name", "checksum", "disk"]) fields.set(name, form.elements[name].value);
        fields.set("file_name", file.name);
        fields.set("size", file.size);
        const begun = await fetch("/uploads", { method: "POST", body: fields });
        if (!begun.ok && passing(begun.status) && begun.status !== 409) throw new Error(await reason(begun));
        if (!begun.ok) throw new Refused(await reason(begun));
        place = begun.headers.get("Location");
        offset = Number(begun.headers.get("Upload-Offset"));
        localStorage.setItem(key, place);
      }
      while (offset < file.size) {
        say(offset, file.size, "");
        const body = file.slice(offset, offset + PIECE);
        const put = await fetch(`${place}?offset=${offset}`, { method: "PUT", body });
        const next = put.headers.get("Upload-Offset");
        if (put.ok) offset = Number(next);
        else if (put.status === 409 && next !== null && Number(next) !== offset) offset = Number(next);
        else if (passing(put.status)) throw new Error(await reason(put));
        else throw new Refused(await reason(put));
        wait = 500;
      }
      localStorage.removeItem(key);
      say(file.size, file.size, "done");
      return place.split("/")[3];
    } catch (error) {
      if (error instanceof Refused) {
        localStorage.removeItem(key);
        throw error;
      }
      say(offset || 0, file.size, `${error.message}; it goes on in ${wait / 1000} s`);
      await pause(wait);
      wait = Math.min(wait * 2, PAUSE_MAX);
      offset = null;
    }
  }
}

document.addEventListener("submit", async (event) => {
  const form = event.target;
  if (form.id !== "upload-form" || !form.elements.file.files.length) return;
  event.preventDefault();
  const [box, bar, state] = ["upload-progress", "upload-bar", "upload-state"].map((id) => document.getElementById(id));
  const button = form.querySelector("button");
  const say = (done, all, words) => {
    bar.value = all ? (100 * done) / all : 0;
    state.textContent = `${Math.floor(bar.value)} % ${words}`;
  };
  box.hidden = false;
  button.disabled = true;
  try {
    location.assign(`/images/${await upload(form, say)}`);
  } catch (error) {
    state.textContent = error.message;
    button.disabled = false;
  }
});
