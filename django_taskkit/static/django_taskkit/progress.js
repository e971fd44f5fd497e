/* Progress bars ask how their tasks stand, where htmx doesn't do it for them. No dependencies, nothing inline. */
(() => {
  "use strict";

  if (globalThis.taskkitProgress) return; // a part of the page has brought it along once more
  globalThis.taskkitProgress = true;

  const LONGEST_PAUSE = 60; // seconds, while the server doesn't answer
  const LONGEST_WISH = 3600; // seconds for which a server is left alone that wants it
  const PATIENCE = 30_000; // milliseconds for one answer
  const FINAL = new Set([400, 401, 403, 404, 405, 406, 410]); // asking again would not help

  const known = new WeakSet();
  let leaving = false;

  const isDone = (element) => leaving || !element.isConnected;
  // htmx marks what it has taken care of; it may be loaded later than this script, or without a global name.
  const isOfHtmx = (element) => "htmx-internal-data" in element || "_htmx" in element;
  const sleep = (seconds) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));
  const show = (element, name, visible) => {
    const hint = element.querySelector(`.taskkit-${name}`);
    if (hint) hint.hidden = !visible;
  };

  /* Wait until somebody looks at the page. */
  const untilSeen = () =>
    new Promise((resolve) => {
      const look = () => {
        if (document.hidden) return;
        document.removeEventListener("visibilitychange", look);
        resolve();
      };
      document.addEventListener("visibilitychange", look);
      look();
    });

  /* Wait, but not longer than until the network is back. */
  const pause = async (seconds) => {
    let back;
    const online = new Promise((resolve) => {
      back = resolve;
      addEventListener("online", back, { once: true });
    });
    await Promise.race([sleep(seconds), online]);
    removeEventListener("online", back);
    if (document.hidden) await untilSeen();
  };

  /* Seconds that the server wants to be left alone: a number, or a date. */
  const retryAfter = (response) => {
    const told = response.headers.get("Retry-After");
    if (!told) return 0;
    const seconds = Number(told);
    const wish = Number.isNaN(seconds) ? (Date.parse(told) - Date.now()) / 1000 || 0 : seconds;
    return Math.min(LONGEST_WISH, Math.max(0, wish));
  };

  const ask = (url) => {
    const aborter = new AbortController();
    const timer = setTimeout(() => aborter.abort(), PATIENCE);
    const answer = fetch(url, {
      headers: { Accept: "text/html" },
      credentials: "same-origin",
      cache: "no-store",
      signal: aborter.signal,
    }).then(async (response) => ({ response, text: await response.text() }));
    return answer.finally(() => clearTimeout(timer));
  };

  const go = (target) => {
    const url = new URL(target, location.href);
    if (leaving || url.origin !== location.origin) return;
    leaving = true;
    location.assign(url.href);
  };

  /* Put the answer in the place of `element`; returns what is there now, null if it is no answer of ours. */
  const replace = (element, text) => {
    const answer = new DOMParser().parseFromString(text, "text/html");
    const fresh = answer.getElementById(element.id);
    if (!fresh) return null;
    show(element, "trouble", false);
    const spoken = answer.querySelector(".taskkit-said");
    const voice = spoken && document.getElementById(spoken.id);
    if (voice) voice.textContent = spoken.textContent;
    if (element.isEqualNode(fresh)) return element; // a reader's place on the page is kept
    const placed = document.importNode(fresh, true);
    known.add(placed);
    element.replaceWith(placed);
    return placed;
  };

  /* Nobody will say any more how the task stands, so what was said of it last counts no longer. */
  const giveUp = (element) => {
    for (const name of ["trouble", "bar", "text", "percent", "hint"]) show(element, name, false);
    show(element, "gone", true);
    const voice = document.getElementById(element.id.replace(/-now$/, "-said"));
    if (voice) voice.textContent = element.querySelector(".taskkit-gone")?.textContent ?? "";
  };

  const follow = async (element) => {
    let failures = 0;
    let wait = 0;
    while (element && element.dataset.taskkitUrl) {
      const every = Number(element.dataset.taskkitEvery) || 2;
      const backoff = failures ? Math.min(LONGEST_PAUSE, every * 2 ** failures) * (0.75 + Math.random() / 4) : every;
      await pause(Math.max(wait, backoff));
      if (isDone(element) || isOfHtmx(element)) return;
      wait = 0;
      try {
        const { response, text } = await ask(element.dataset.taskkitUrl);
        if (isDone(element)) return;
        if (response.ok || FINAL.has(response.status)) {
          const now = replace(element, text);
          if (!now) return giveUp(element); // the page of a log-in, say
          element = now;
          failures = 0; // when to ask again is in the answer
          continue;
        }
        wait = retryAfter(response);
      } catch {
        // No network, or no answer in time.
      }
      failures += 1;
      if (failures > 1) show(element, "trouble", true);
    }
    if (element && element.dataset.taskkitGo) go(element.dataset.taskkitGo);
  };

  const find = (root) => {
    const found = [...root.querySelectorAll("[data-taskkit-url]")];
    if (root.matches?.("[data-taskkit-url]")) found.push(root);
    for (const element of found) {
      if (known.has(element)) continue;
      known.add(element);
      follow(element);
    }
  };

  find(document);
  new MutationObserver((changes) => {
    for (const change of changes)
      for (const node of change.addedNodes) if (node.nodeType === Node.ELEMENT_NODE) find(node);
  }).observe(document.documentElement, { childList: true, subtree: true });
})();
