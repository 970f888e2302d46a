#!/usr/bin/env bash
# Takes the pictures in docs/ with headless Chromium: the Temporal UI (runs, a finished run, a failed one) and the
# report (light, dark, phone).
#
#   docs/screenshots.sh DATA [OUT]
#
# DATA is a data directory of the embedded stack with a finished and a failed run in it, such as make run leaves in .longalign
# (a copy of the demo with documents.min_tokens=999 and another name fails: no document is that long). OUT defaults to docs. Needs make build,
# chromium (or CHROMIUM), jq, and, if they are there, pngquant to shrink the pictures and ImageMagick to trim the phone's.
set -euo pipefail

data=${1:?usage: docs/screenshots.sh DATA [OUT]}
here=$(cd "$(dirname "$0")" && pwd)
out=${2:-$here}
starter=${STARTER:-$here/../bin/starter}
chromium=${CHROMIUM:-$(command -v chromium || command -v chromium-browser || command -v google-chrome || true)}
[ -n "$chromium" ] || { echo "screenshots: no Chromium found; install one or set CHROMIUM" >&2; exit 1; }
[ -x "$starter" ] || { echo "screenshots: $starter is not there; run make build" >&2; exit 1; }

profile=$(mktemp -d)
"$starter" dev --data "$data" >"$profile/dev.log" 2>&1 &
stack=$!
trap 'kill -INT "$stack" 2>/dev/null; wait "$stack" 2>/dev/null; rm -rf "$profile"' EXIT
for _ in $(seq 120); do
  grep -q '^Temporal UI' "$profile/dev.log" && break
  kill -0 "$stack" 2>/dev/null || { cat "$profile/dev.log" >&2; exit 1; }
  sleep 1
done
ui=$(jq -r .ui "$data/endpoint.json")
namespace=$(jq -r .namespace "$data/endpoint.json")
for _ in $(seq 60); do curl -fsS -o /dev/null "$ui/" && break; sleep 1; done

runs=$("$starter" list --data "$data" --json)
finished=$(jq -r '[.[] | select(.status == "completed")][0].id // empty' <<<"$runs")
failed=$(jq -r '[.[] | select(.status == "failed")][0].id // empty' <<<"$runs")
[ -n "$finished" ] || { echo "screenshots: $data holds no finished run" >&2; exit 1; }

# shot FILE WIDTH HEIGHT URL [FLAG...]
shot() {
  local file=$out/$1 size=$2,$3 url=$4
  shift 4
  "$chromium" --headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking \
    --disable-component-update --disable-sync --user-data-dir="$profile/chromium" --hide-scrollbars \
    --virtual-time-budget="${BUDGET:-15000}" --window-size="$size" "$@" --screenshot="$file" "$url" >/dev/null 2>&1
  if command -v pngquant >/dev/null; then pngquant --force --skip-if-larger --output "$file" 128 "$file" || true; fi
  echo "$file"
}

shot temporal-list.png 1360 760 "$ui/namespaces/$namespace/workflows"
shot temporal-run.png 1360 1000 "$ui/namespaces/$namespace/workflows/$finished"
run=$(jq -r --arg id "$finished" '[.[] | select(.id == $id)][0].run_id' <<<"$runs")
shot temporal-details.png 1360 900 "$ui/namespaces/$namespace/workflows/$finished/$run/user-metadata"
if [ -n "$failed" ]; then shot temporal-failed.png 1360 1000 "$ui/namespaces/$namespace/workflows/$failed"; fi

"$starter" report "$finished" --data "$data" --out "$profile/report" >/dev/null
page=file://$profile/report/report.html
shot report-light.png 1200 1500 "$page"
shot report-dark.png 1200 1500 "$page" --blink-settings=preferredColorScheme=0 --force-dark-mode --enable-features=WebContentsForceDark:inversion_method/none
# Chromium's windows are at least 500 wide; a phone is 390.
echo "<body style='margin:0'><iframe src='report/report.html' style='border:0;width:390px;height:1100px'></iframe>" >"$profile/phone.html"
shot report-phone.png 500 1100 "file://$profile/phone.html"
if command -v convert >/dev/null; then convert "$out/report-phone.png" -crop 390x1100+0+0 +repage "$out/report-phone.png"; fi
