// Draws the page of a run from `data`. Rows: [workload, process, f, call, from, to, outcome, answer, index], times in ms.
'use strict';
const $ = id => document.getElementById(id);
const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const words = ['ok', 'fail', 'unknown'];
const { summary, workloads, operations } = data;
const spans = summary.spells.map(span => ({ ...span, from: span.from_us / 1000, to: span.to_us > 1e15 ? null : span.to_us / 1000 }));
const last = operations.reduce((end, row) => Math.max(end, row[5] ?? row[4]), 1);
let view = [0, last], chosen = -1, lanes = [];

function element(parent, name, text, kind) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  parent.append(made);
  return made;
}

function table(parent, head, rows) {
  const made = element(parent, 'table');
  const line = (cells, name) => { const row = element(made, 'tr'); cells.forEach(cell => element(row, name, cell)); };
  line(head, 'th');
  rows.forEach(row => line(row, 'td'));
}

function tell() {
  const broken = summary.verdicts.flatMap(([workload, verdict]) => verdict.violations.map(one => [workload, one]));
  const unsaid = (name, word) => summary.verdicts.flatMap(([workload, verdict]) => verdict[name].map(one => [workload, word, one]));
  const open = unsaid('undecided', 'undecided'), missing = unsaid('not_shown', 'not shown');
  $('title').textContent = `${broken.length ? 'FAILED' : missing.length ? 'Not shown' : open.length ? 'Not decided' : 'Passed'}: seed ${summary.seed}, ${summary.seconds} s, ${spans.length} faults`;
  table($('counts'), ['workload', 'operations', 'ok', 'fail', 'unknown', 'violations'], summary.verdicts.map(([name, verdict]) => {
    const counts = summary.counts[name] ?? { operations: '', ok: '', fail: '', unknown: '' };
    return [name, counts.operations, counts.ok, counts.fail, counts.unknown, verdict.violations.length];
  }));
  if (!broken.length) element($('violations'), 'p', 'None.');
  const list = element($('violations'), 'ul');
  broken.forEach(([workload, one]) => {
    const item = element(list, 'li', undefined, 'bad');
    item.textContent = `${workload}, ${one.property}: ${one.detail} (events ${one.events.join(', ')})`;
    item.onclick = () => show(one.events);
  });
  [...missing, ...open].forEach(([workload, word, one]) => element(list, 'li', `${workload}, ${word}: ${one}`));
  table($('faults'), ['fault', 'from, s', 'to, s', 'what'], spans.map(span =>
    [span.fault, (span.from / 1000).toFixed(2), span.to === null ? '–' : (span.to / 1000).toFixed(2), span.done]));
  table($('by-fault'), ['workload', 'fault', 'operations', 'ok', 'fail', 'unknown', 'violations'], summary.by_fault.map(row =>
    [row.workload, row.fault, row.operations, row.ok, row.fail, row.unknown, row.violations]));
  summary.verdicts.forEach(([name, verdict]) => verdict.checked.forEach(([property, number]) => {
    const here = verdict.violations.some(one => one.property === property);
    element($('checked'), 'div', `${here ? 'BROKEN' : number ? 'holds' : 'unseen'} – ${name}: ${property} (${number})`, here ? 'bad' : '');
  }));
}

// Zooms to the events of a violation.
function show(events) {
  const rows = operations.filter(row => events.includes(row[8]));
  if (!rows.length) return;
  const from = Math.min(...rows.map(row => row[4])), to = Math.max(...rows.map(row => row[5] ?? row[4]));
  const margin = Math.max(20, (to - from) * .3);
  view = [from - margin, to + margin];
  draw();
  $('timeline').scrollIntoView({ block: 'center' });
}

// Clients that never overlap share a lane.
function arrange() {
  const ends = [];
  const lane = new Map();
  lanes = shown().map(row => {
    const key = `${row[0]}/${row[1]}`;
    if (!lane.has(key)) {
      let place = ends.findIndex(end => end <= row[4]);
      if (place < 0) place = ends.push(0) - 1;
      lane.set(key, place);
    }
    const place = lane.get(key);
    ends[place] = Math.max(ends[place], row[5] ?? Infinity);
    return [place, row];
  });
  lanes.count = Math.max(1, ends.length);
}

const shown = () => chosen < 0 ? operations : operations.filter(row => row[0] === chosen);
const visible = (from, to) => to >= view[0] && from <= view[1];

function canvas(id) {
  const made = $(id), ratio = devicePixelRatio || 1, height = +made.getAttribute('height') || made.height;
  made.dataset.height ??= height;
  made.width = made.clientWidth * ratio;
  made.height = +made.dataset.height * ratio;
  made.style.height = `${made.dataset.height}px`;
  const pen = made.getContext('2d');
  pen.scale(ratio, ratio);
  const size = [made.clientWidth, +made.dataset.height];
  const x = time => (time - view[0]) / (view[1] - view[0]) * size[0];
  pen.fillStyle = css('--fault');
  spans.filter(span => visible(span.from, span.to ?? last)).forEach(span => {
    pen.fillRect(x(span.from), 0, Math.max(1, x(span.to ?? last) - x(span.from)), size[1]);
  });
  pen.font = '11px system-ui, sans-serif';
  return { pen, x, size };
}

const colour = outcome => css(['--ok', '--fail', '--unknown'][outcome]);

function label(pen, text, x, y) { pen.fillStyle = css('--soft'); pen.fillText(text, x, y); }

function drawRate() {
  const { pen, x, size } = canvas('rate');
  const buckets = Math.max(1, Math.floor(size[0] / 4)), width = (view[1] - view[0]) / buckets;
  const counts = [0, 1, 2].map(() => new Array(buckets).fill(0));
  shown().forEach(row => {
    const place = Math.floor(((row[5] ?? row[4]) - view[0]) / width);
    if (place >= 0 && place < buckets) counts[row[6]][place]++;
  });
  const top = Math.max(1, ...counts[0].map((count, place) => count + counts[1][place] + counts[2][place]));
  for (let place = 0; place < buckets; place++) {
    let y = size[1];
    [0, 1, 2].forEach(outcome => {
      const height = counts[outcome][place] / top * (size[1] - 14);
      pen.fillStyle = colour(outcome);
      pen.fillRect(x(view[0] + place * width), y - height, Math.max(1, size[0] / buckets - .5), height);
      y -= height;
    });
  }
  label(pen, `${Math.round(top / width * 1000)}/s`, 4, 11);
}

function drawLatency() {
  const { pen, x, size } = canvas('latency');
  const y = ms => size[1] - 6 - Math.log10(Math.max(.1, ms) * 10) / 6 * (size[1] - 12);
  [1, 10, 100, 1000, 10000].forEach(ms => {
    pen.fillStyle = css('--line');
    pen.fillRect(0, y(ms), size[0], 1);
    label(pen, ms >= 1000 ? `${ms / 1000} s` : `${ms} ms`, 4, y(ms) - 3);
  });
  shown().filter(row => row[5] !== null && visible(row[5], row[5])).forEach(row => {
    pen.fillStyle = colour(row[6]);
    pen.fillRect(x(row[5]) - 1, y(row[5] - row[4]) - 1, 2, 2);
  });
}

function drawTimeline() {
  const { pen, x, size } = canvas('timeline');
  const height = size[1] / lanes.count;
  lanes.filter(([, row]) => visible(row[4], row[5] ?? row[4] + 5)).forEach(([lane, row]) => {
    pen.fillStyle = colour(row[6]);
    const from = x(row[4]), to = row[5] === null ? from + 3 : x(row[5]);
    pen.fillRect(from, lane * height, Math.max(1, to - from), Math.max(1, height - 1));
  });
  label(pen, `${(view[0] / 1000).toFixed(2)} s`, 4, size[1] - 4);
  label(pen, `${(view[1] / 1000).toFixed(2)} s`, size[0] - 60, size[1] - 4);
}

function draw() { drawRate(); drawLatency(); drawTimeline(); }

function at(event) { return view[0] + event.offsetX / event.target.clientWidth * (view[1] - view[0]); }

function point(event) {
  const time = at(event), tip = $('tip'), lines = [];
  spans.filter(span => time >= span.from && time <= (span.to ?? last)).forEach(span => lines.push(`fault ${span.fault}: ${span.done}`));
  if (event.target.id === 'timeline') {
    const lane = Math.floor(event.offsetY / event.target.clientHeight * lanes.count);
    const slack = (view[1] - view[0]) / 500;
    const hit = lanes.find(([place, row]) => place === lane && time >= row[4] - slack && time <= (row[5] ?? row[4]) + slack);
    if (hit) {
      const row = hit[1], took = row[5] === null ? 'no answer' : `${(row[5] - row[4]).toFixed(2)} ms`;
      lines.unshift(`${row[8]}  ${workloads[row[0]]} ${row[2]}  ${words[row[6]]}, ${took}\n${row[3]}\n${row[7]}`);
    }
  }
  lines.push(`${(time / 1000).toFixed(3)} s`);
  tip.textContent = lines.join('\n');
  tip.style.display = 'block';
  tip.style.left = `${Math.min(event.clientX + 12, innerWidth - 420)}px`;
  tip.style.top = `${event.clientY + 14}px`;
}

['rate', 'latency', 'timeline'].forEach(id => {
  $(id).addEventListener('wheel', event => {
    event.preventDefault();
    const time = at(event), factor = event.deltaY > 0 ? 1.25 : .8;
    view = [time - (time - view[0]) * factor, time + (view[1] - time) * factor];
    draw();
  }, { passive: false });
  $(id).addEventListener('mousemove', event => {
    if (event.buttons === 1) {
      const shift = event.movementX / event.target.clientWidth * (view[1] - view[0]);
      view = [view[0] - shift, view[1] - shift];
      draw();
    }
    point(event);
  });
  $(id).addEventListener('mouseleave', () => { $('tip').style.display = 'none'; });
});
[['all workloads', -1], ...workloads.map((name, place) => [name, place])].forEach(([name, place]) => {
  element($('workload'), 'option', name).value = place;
});
$('workload').onchange = event => { chosen = +event.target.value; arrange(); draw(); };
addEventListener('resize', draw);
tell();
arrange();
draw();
