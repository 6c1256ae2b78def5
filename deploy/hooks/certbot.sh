#!/bin/sh
# Has the gate answer certbot's challenges, in place of certbot's own server or a web root:
#
#     certbot certonly --manual --preferred-challenges http \
#         --manual-auth-hook /path/to/certbot.sh --manual-cleanup-hook /path/to/certbot.sh -d example.net
#
# certbot keeps both hooks for its renewals. `wicketgate run` must be running, and this user must be root or the
# daemon's own. WICKETGATE names another program than the one in PATH, with arguments if need be.
set -eu

# A token may begin with a hyphen, hence the `--`.
if [ -n "${CERTBOT_AUTH_OUTPUT+set}" ]; then
    # The second of the two: certbot tells it what the first one said.
    # Its time may be over already.
    ${WICKETGATE:-wicketgate} challenge remove -- "${CERTBOT_TOKEN:?}" || true
else
    ${WICKETGATE:-wicketgate} challenge put -- "${CERTBOT_DOMAIN:?}" "${CERTBOT_TOKEN:?}" "${CERTBOT_VALIDATION:?}"
fi
