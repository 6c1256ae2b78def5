#!/bin/sh
# Runs acme.sh behind the gate; all arguments are acme.sh's. Certificates are obtained in its standalone mode once:
#
#     /path/to/hooks/acme.sh --issue --standalone -d example.net
#
# and renewed by this line in the crontab, in place of the one that acme.sh has put there:
#
#     23 4 * * * /path/to/hooks/acme.sh --cron
#
# acme.sh answers on a port of its own (PORT, by default 5002; it needs socat) and keeps it for the renewals; the gate
# asks it there for tokens that it does not know itself, as long as acme.sh runs. ACME_SH names the real acme.sh, by default
# ~/.acme.sh/acme.sh. `wicketgate run` must be running, and this user must be root or the daemon's own. WICKETGATE
# names another program than the one in PATH, with arguments if need be.
set -eu

port=${PORT:-5002}
exec ${WICKETGATE:-wicketgate} challenge relay --port "$port" -- \
    "${ACME_SH:-$HOME/.acme.sh/acme.sh}" --httpport "$port" "$@"
