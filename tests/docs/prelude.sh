# What runs before the steps of a document. $DOCS_STATE is the harness's folder.
set -eEuo pipefail
trap 'printf "%s: %s\n" "$LINENO" "$BASH_COMMAND" >>"$DOCS_STATE/failed"' ERR
docs_servers=(${DOCS_GATEWAY:-})

# Waits until the server that was just started, as process $1, responds at port $2.
docs_started() {
    docs_servers+=("$1")
    until curl -fs -o "$DOCS_STATE/healthz" "http://127.0.0.1:$2/healthz" 2>/dev/null; do
        kill -0 "$1" 2>/dev/null || { echo "the server has ended" >&2; exit 1; }
        sleep 0.1
    done
}

# Ends the servers, as Ctrl-C would: they and what they have started.
docs_stop() {
    local server
    for server in "${docs_servers[@]}"; do
        kill $(cat "/proc/$server/task/$server/children" 2>/dev/null) "$server" 2>/dev/null || true
        wait "$server" 2>/dev/null || true
        while readlink "/proc/$server/exe" >/dev/null 2>&1; do sleep 0.05; done
    done
    docs_servers=()
}

# What a reader would paste for the variable $1: the token that a gateway has announced, or the last
# field of that name that a command has printed.
docs_pasted() {
    local name=${1##*_} found
    case $name in
    TOKEN) found=$(cat "$DOCS_STATE"/*/out | sed -n 's/^admin token *//p' | tail -n 1) ;;
    *) found=$(cat "$DOCS_STATE"/*/out | grep -oE "\"${name,,}\": *\"[^\"]*\"" | tail -n 1 | cut -d '"' -f 4) ;;
    esac
    if [ -z "$found" ]; then
        echo "nothing printed before can be pasted for $1=…" >&2
        return 1
    fi
    printf %s "$found"
}
