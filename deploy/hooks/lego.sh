#!/bin/sh
# Runs lego behind the gate; all arguments are lego's, but for those of its challenge:
#
#     lego.sh --email ops@example.net --domains example.net --accept-tos run
#     lego.sh --email ops@example.net --domains example.net renew
#
# lego answers on a port of loopback (PORT, by default 5002), and the gate asks it there for tokens that it does not
# know itself, as long as lego runs. `wicketgate run` must be running, and this user must be root or the daemon's own.
# WICKETGATE names another program than the one in PATH, with arguments if need be.
set -eu

port=${PORT:-5002}
exec ${WICKETGATE:-wicketgate} challenge relay --port "$port" -- \
    lego --http --http.port "127.0.0.1:$port" "$@"
