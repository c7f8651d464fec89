#!/usr/bin/env bash
# Collects the readings of sensors into one file a day, and removes old ones.
set -euo pipefail

readonly KEEP=30
folder=${1:-readings}
sensors=(roof cellar kitchen)

usage() {
    cat <<'TEXT'
usage: collect [FOLDER]
TEXT
}

# A sensor that does not answer in time is left out.
ask() {
    local sensor=$1 value
    value=$(curl -fsS --max-time 5 "http://$sensor.local/value") || return 1
    printf '%s,%s\n' "$sensor" "$value"
}

rotate() {
    local count=0 file
    while read -r file; do
        count=$((count + 1))
        if (( count > KEEP )); then
            rm -- "$file"
        fi
    done < <(ls -t "$folder")
}

case ${1:-} in
    -h | --help) usage; exit 0 ;;
    -*) usage >&2; exit 2 ;;
esac

mkdir -p "$folder"
today=$(date +%F)
for sensor in "${sensors[@]}"; do
    if [[ -n $sensor ]] && ask "$sensor" >> "$folder/$today.csv"; then
        echo "$sensor answered"
    else
        echo "$sensor is silent" >&2
    fi
done
sort -u "$folder/$today.csv" | wc -l
rotate
