#!/usr/bin/env bash
# Starts the development stack, proves it with a real request and says how to use it.
# WORKERS and INGRESSES (1 by default) say how many of each. Running it twice is harmless: what runs of another build,
# or with other settings, is restarted one after the other, and sessions go on.
set -euo pipefail
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

workers=${WORKERS:-1}
ingresses=${INGRESSES:-1}
[[ $workers =~ ^[1-9][0-9]?$ ]] || fail "WORKERS must be 1 to 99, not $workers"
[[ $ingresses =~ ^[1-9][0-9]?$ ]] || fail "INGRESSES must be 1 to 99, not $ingresses"
[ "$(id -u)" = 0 ] || fail "root is needed: sandboxes are made of namespaces, mounts and cgroups"

umask 077
mkdir -p "$home"/{run,log,keys,nats,store,data}
exec 9>"$home/.lock"
flock 9

claim_port() { # NAME PORT SETTING
  running "$1" >/dev/null || ! listening "$2" ||
    fail "port $2 for $1 is taken; set $3 to another one"
}
claim_port nats "$nats_port" HEARTH_NATS_PORT
for ((n = 1; n <= workers; n++)); do
  claim_port "worker-$n" $((admin_port + n - 1)) HEARTH_ADMIN_PORT
done
for ((n = 1; n <= ingresses; n++)); do
  claim_port "ingress-$n" $((http_port + n - 1)) HEARTH_HTTP_PORT
  claim_port "ingress-$n" $((https_port + n - 1)) HEARTH_HTTPS_PORT
done

# ── secrets and settings, made once ──
random() { od -An -vtx1 -N"$1" /dev/urandom | tr -d ' \n'; }
once() { # FILE: standard input becomes the file unless it exists
  if [ -s "$1" ]; then cat >/dev/null; else cat >"$1.new" && mv "$1.new" "$1"; fi
}
random 32 | once "$home/cluster.key"
echo "ingress:$(random 16)" | once "$home/nats-ingress.auth"
echo "worker:$(random 16)" | once "$home/nats-worker.auth"
echo "operator:$(random 16)" | once "$home/nats-operator.auth"
once "$home/pools.toml" <<EOF
# Read at start. Every field is described in docs/settings.md.
[[pool]]
id = "01JDE1KZ0000000000000000PY"
subscription = "$subscription"
resource_group = "hearth"
name = "python"
container_type = "PythonLTS"
max_sessions = 600
cooldown_seconds = 300
EOF
# A file that was made when there were no pools of shells gets one.
grep -q '"Shell"' "$home/pools.toml" || cat >>"$home/pools.toml" <<EOF

[[pool]]
id = "01JDE1KZ0000000000000000SH"
subscription = "$subscription"
resource_group = "hearth"
name = "shell"
container_type = "Shell"
max_sessions = 600
cooldown_seconds = 300
EOF
"$programs/devkeys" make --out-dir "$home/keys"
"$programs/devkeys" certificate --out-dir "$home/keys"
password() { cut -d: -f2 "$home/nats-$1.auth"; }
sed -e "s|@LISTEN@|127.0.0.1:$nats_port|" -e "s|@STORE_DIR@|$home/nats|" \
  -e "s|@INGRESS_PASSWORD@|$(password ingress)|" -e "s|@WORKER_PASSWORD@|$(password worker)|" \
  -e "s|@OPERATOR_PASSWORD@|$(password operator)|" \
  -e "s|@CLUSTER@||" \
  "$root/infra/nats/hearth.conf.template" >"$home/nats.conf.new"
if cmp -s "$home/nats.conf.new" "$home/nats.conf"; then
  rm "$home/nats.conf.new"
else
  mv "$home/nats.conf.new" "$home/nats.conf"
fi

# ── processes ──
bus=(--nats "nats://127.0.0.1:$nats_port" --store "file://$home/store" --pools "$home/pools.toml")
# What each kind of process is started from.
nats_files=("$shared/bin/nats-server" "$home/nats.conf")
worker_files=("$programs/worker" "$programs/libzygote.so" "$shared/image/current.erofs" "$home/pools.toml")
ingress_files=("$programs/ingress" "$home/pools.toml")

start_nats() {
  build "${nats_files[@]}" >"$home/run/nats.build"
  start nats "$shared/bin/nats-server" -c "$home/nats.conf"
}
start_worker() { # NUMBER
  build "${worker_files[@]}" >"$home/run/worker-$1.build"
  rm -f "$home/run/worker-$1.ready"
  start "worker-$1" "$programs/worker" --id "$worker_prefix-$1" "${bus[@]}" \
    --nats-auth "$home/nats-worker.auth" --image "$shared/image/current.erofs" \
    --admin-listen "127.0.0.1:$((admin_port + $1 - 1))" \
    --data-dir "$home/data/worker-$1" --drain-seconds 10 --ready-file "$home/run/worker-$1.ready"
}
start_ingress() { # NUMBER
  build "${ingress_files[@]}" >"$home/run/ingress-$1.build"
  start "ingress-$1" "$programs/ingress" serve "${bus[@]}" \
    --nats-auth "$home/nats-ingress.auth" --cluster-key "$home/cluster.key" \
    --listen "127.0.0.1:$((http_port + $1 - 1))" \
    --tls-listen "127.0.0.1:$((https_port + $1 - 1))" --lame-duck-seconds 0 \
    --tls-cert "$home/keys/cert.pem" --tls-key "$home/keys/key.pem" \
    --jwks "$home/keys/jwks.json" --jwt-issuer "$issuer"
}
wait_for_worker() { # NUMBER
  wait_for "worker-$1" 120 test -f "$home/run/worker-$1.ready"
}
wait_for_ingress() { # NUMBER
  wait_for "ingress-$1" 30 curl --silent --fail "http://127.0.0.1:$((http_port + $1 - 1))/readyz"
}
stop_outdated() { # NAME FILE…: succeeds if it was
  outdated "$@" || return 1
  echo "$1 runs of an older build or with older settings: restarting it"
  stop "$1"
}

# How many of a kind are looked after: as many as are asked for, or more if an earlier call started more.
count() { # KIND NUMBER
  local n=$2
  while running "$1-$((n + 1))" >/dev/null; do n=$((n + 1)); done
  echo "$n"
}
workers=$(count worker "$workers")
ingresses=$(count ingress "$ingresses")

# The bus first, for its rights, then the workers: ingresses may ask for what only they know. Of each kind one
# after the other, so that the others serve.
stop_outdated nats "${nats_files[@]}" || true
if ! running nats >/dev/null; then
  start_nats
  wait_for nats 20 listening "$nats_port"
fi
for ((n = 1; n <= workers; n++)); do
  if stop_outdated "worker-$n" "${worker_files[@]}"; then
    start_worker "$n"
    wait_for_worker "$n"
  fi
done
for ((n = 1; n <= workers; n++)); do
  running "worker-$n" >/dev/null || start_worker "$n"
done
for ((n = 1; n <= ingresses; n++)); do
  if stop_outdated "ingress-$n" "${ingress_files[@]}"; then
    start_ingress "$n"
    wait_for_ingress "$n"
  fi
done
for ((n = 1; n <= ingresses; n++)); do
  running "ingress-$n" >/dev/null || start_ingress "$n"
done
for ((n = 1; n <= workers; n++)); do
  wait_for_worker "$n"
done
for ((n = 1; n <= ingresses; n++)); do
  wait_for_ingress "$n"
done

# ── how to use it ──
token=$("$programs/devkeys" token --key "$home/keys/signing-key.pem" --issuer "$issuer")
{
  echo "# The running development stack; written by make up."
  for ((n = 1; n <= ingresses; n++)); do
    suffix=$([ "$n" = 1 ] || echo "_$n")
    echo "export POOL_ENDPOINT$suffix=http://localhost:$((http_port + n - 1))$pool_path"
    echo "export SHELL_POOL_ENDPOINT$suffix=http://localhost:$((http_port + n - 1))$pools_path/shell"
    echo "export POOL_ENDPOINT_HTTPS$suffix=https://localhost:$((https_port + n - 1))$pool_path"
  done
  echo "export SSL_CERT_FILE=$home/keys/cert.pem"
  echo "export TOKEN=$token"
  echo "export HEARTH='$programs/hearth --nats nats://127.0.0.1:$nats_port --nats-auth $home/nats-operator.auth --pools $home/pools.toml'"
} >"$home/dev.env"
. "$home/dev.env"

answer=$(curl --silent --show-error --fail-with-body --max-time 30 \
  "$POOL_ENDPOINT/code/execute?api-version=2024-02-02-preview&identifier=make-up-$RANDOM" \
  -H "Authorization: Bearer $TOKEN" -H 'Content-Type: application/json' \
  -d '{"properties":{"codeInputType":"inline","executionType":"synchronous","code":"6 * 7"}}') ||
  fail "the stack does not run code: $answer; see $home/log"
[[ $answer == *'"result":42'* ]] || fail "the stack gave a wrong answer: $answer"

cat <<EOF

Hearth runs: $ingresses ingress, $workers worker, logs in $home/log
  endpoint  $POOL_ENDPOINT
  settings  . $home/dev.env

Try it:
  . $home/dev.env
  curl "\$POOL_ENDPOINT/code/execute?api-version=2024-02-02-preview&identifier=my-session" \\
    -H "Authorization: Bearer \$TOKEN" -H 'Content-Type: application/json' \\
    -d '{"properties":{"codeInputType":"inline","executionType":"synchronous","code":"import numpy; print(numpy.arange(3)); 6 * 7"}}'

See what it does:
  \$HEARTH workers
  \$HEARTH session python my-session

Stop it: make down
EOF
