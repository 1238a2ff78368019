#!/bin/sh
# Writes a random value for each variable that docker-compose.langfuse.yml requires into a file, by default .env beside
# it, which Compose reads by itself. Never overwrites one that is there: the volumes were made with its secrets.
set -eu

folder=$(cd "$(dirname "$0")/.." && pwd)
file=${1:-"$folder/.env"}

if [ -e "$file" ]; then
    echo "$file is there already, and stays as it is" >&2
    exit 1
fi

umask 077
trap 'rm -f "$file.new"' EXIT
for name in $(grep -o '[$]{[A-Z0-9_]*:?' "$folder/docker-compose.langfuse.yml" | tr -d '${:?' | sort -u); do
    case $name in
        LANGFUSE_PUBLIC_KEY) prefix=pk-lf- ;;
        LANGFUSE_SECRET_KEY) prefix=sk-lf- ;;
        *) prefix= ;;
    esac
    echo "$name=$prefix$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')"
done > "$file.new"
# in one step, so that a script that was stopped leaves no half file that would be taken for a whole one
mv "$file.new" "$file"
trap - EXIT
echo "$file written"
