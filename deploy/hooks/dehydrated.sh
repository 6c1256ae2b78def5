#!/bin/sh
# Has the gate answer dehydrated's challenges: `HOOK=/path/to/dehydrated.sh` in its configuration, with
# `CHALLENGETYPE=http-01`. dehydrated still wants a folder as `WELLKNOWN`, which nobody has to serve.
#
# `wicketgate run` must be running, and this user must be root or the daemon's own. WICKETGATE names another program
# than the one in PATH, with arguments if need be.
set -eu

what=${1:-}
[ $# -eq 0 ] || shift
case $what in
deploy_challenge | clean_challenge)
    # A token may begin with a hyphen, hence the `--`. With HOOK_CHAIN=yes, all names of a certificate come at once: DOMAIN TOKEN KEY_AUTHORIZATION …
    while [ $# -ge 3 ]; do
        if [ "$what" = deploy_challenge ]; then
            ${WICKETGATE:-wicketgate} challenge put -- "$1" "$2" "$3"
        else
            # Its time may be over already.
            ${WICKETGATE:-wicketgate} challenge remove -- "$2" || true
        fi
        shift 3
    done
    ;;
esac
