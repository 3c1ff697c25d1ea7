// A visit to a page by a real browser: what the page sends to the tracker, and what it gets.
//
//   usage: node visit.mjs PLAYWRIGHT_FOLDER PROFILE_FOLDER PAGE_URL TRACKER_URL VISIT
//
// Prints one line of JSON and stays until its standard input ends: events sent without waiting for
// an answer are on their way. Every host below `example` is this machine.
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';

const [playwright, profile, url, tracker, visit] = process.argv.slice(2);
const { chromium } = createRequire(import.meta.url)(playwright);

const context = await chromium.launchPersistentContext(profile, {
  executablePath: process.env.PATH.split(':').map((folder) => `${folder}/chromium`).find(existsSync),
  args: [
    '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-sync',
    '--disable-background-networking', '--disable-component-update',
    '--host-resolver-rules=MAP *.example 127.0.0.1',
    // That of the tracker is its own.
    '--ignore-certificate-errors',
  ],
});
try {
  const page = await context.newPage();
  await page.goto(url);
  const said = await page.evaluate(async ({ tracker, visit }) => {
    const event = (ename) => JSON.stringify({ ename, etyp: visit });
    const post = await fetch(`${tracker}/tr/v1/tr/`, {
      method: 'POST',
      credentials: 'include',
      headers: { 'Content-Type': 'application/json' },
      body: event('post'),
    }).then((answer) => answer.headers.get('X-Ack'), (error) => error.name);
    // What a browser keeps from the page is not tried by other ways.
    if (post !== 'durable') return { post };
    const beacon = navigator.sendBeacon(`${tracker}/tr/v1/tr/`, event('beacon'));
    const socket = await new Promise((resolve) => {
      const socket = new WebSocket(`${tracker.replace('http', 'ws')}/tr/v1/ws?ack=1`);
      socket.onopen = () => socket.send(event('socket'));
      socket.onmessage = (message) => resolve(JSON.parse(message.data));
      socket.onclose = (close) => resolve({ closed: close.code });
    });
    return { post, beacon, socket };
  }, { tracker, visit });
  console.log(JSON.stringify({ ...said, cookies: await context.cookies() }));
  for await (const _ of process.stdin);
} finally {
  await context.close();
}
