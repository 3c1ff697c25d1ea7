"use strict";
(() => {
  const at = (id) => document.getElementById(id);
  const api = location.pathname.replace(/\/pub\/.*$/, "/rpi");

  const say = (text, kind) => {
    at("status").textContent = text;
    at("status").className = "status " + (kind || "");
  };

  // Easy to read aloud and to type: no capitals, no look-alikes.
  const random = () => {
    const letters = "abcdefghjkmnpqrstuvwxyz23456789";
    const bytes = crypto.getRandomValues(new Uint8Array(7));
    return "/" + Array.from(bytes, (byte) => letters[byte % letters.length]).join("");
  };

  const ask = async (path, options) => {
    const bytes = new TextEncoder().encode(at("user").value.trim() + ":" + at("password").value);
    const basic = btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
    const answer = await fetch(api + path, {
      ...options,
      // The password is kept in this form only: no cookie, no dialogue of the browser.
      credentials: "omit",
      cache: "no-store",
      headers: { Authorization: "Basic " + basic, ...(options && options.headers) },
    });
    if (answer.ok) return answer;
    let words = "The server answered " + answer.status + ".";
    try {
      const { error } = await answer.json();
      words = (error.field ? error.field + ": " : "") + error.message;
    } catch { /* no JSON: the status says it */ }
    throw new Error(words);
  };

  const picture = (address) => {
    const image = document.createElement("img");
    image.src = api + "/qr?url=" + encodeURIComponent(address);
    image.alt = "QR code of " + address;
    return image;
  };

  const item = (link) => {
    const row = document.createElement("li");
    const address = "https://" + link.urlfrom;
    const from = document.createElement("strong");
    from.textContent = link.urlfrom;
    const to = document.createElement("span");
    to.className = "to";
    to.textContent = "→ " + link.urlto;
    const when = document.createElement("span");
    when.className = "when";
    when.textContent = new Date(link.updated_at).toLocaleString();
    const code = document.createElement("button");
    code.type = "button";
    code.className = "quiet";
    code.textContent = "QR code";
    code.setAttribute("aria-label", "Show the QR code of " + link.urlfrom);
    code.addEventListener("click", () => code.replaceWith(picture(address)));
    row.append(from, to, when, document.createTextNode(" "), code);
    return row;
  };

  const list = async () => {
    const answer = await ask("/redirects/" + encodeURIComponent(at("host").value.trim()));
    const { results } = await answer.json();
    // The newest change of each link; the list is newest first.
    const seen = new Set();
    const newest = results.filter((link) => !seen.has(link.urlfrom) && seen.add(link.urlfrom));
    at("links").replaceChildren(...newest.map(item));
    return newest.length;
  };

  const run = async (work) => {
    if (!at("user").reportValidity() || !at("password").reportValidity() || !at("host").reportValidity()) return;
    say("…");
    try { await work(); } catch (error) { say(error.message, "bad"); }
  };

  at("form").addEventListener("submit", (event) => {
    event.preventDefault();
    run(async () => {
      const slug = at("slug").value.trim();
      const urlfrom = "https://" + at("host").value.trim() + (slug.startsWith("/") ? "" : "/") + slug;
      await ask("/redirect", {
        method: "POST",
        headers: { "Content-Type": "application/json" },
        body: JSON.stringify({ urlfrom, urlto: at("to").value.trim() }),
      });
      await list();
      say(urlfrom + " leads there now.", "good");
      at("slug").value = random();
    });
  });
  at("list").addEventListener("click", () => run(async () => {
    const count = await list();
    say(count === 1 ? "1 link." : count + " links.", "good");
  }));
  at("random").addEventListener("click", () => { at("slug").value = random(); });

  at("host").value = location.hostname;
  at("slug").value = random();
})();
