#!/bin/sh
# Rolls a trigger out with docker compose: pins the images in an override file, and starts the services.
#
#   [[trigger]]
#   name = "shop"
#   images.web = "registry.example.com/shop/web:latest"
#   images.worker = "registry.example.com/shop/worker:latest"
#   [trigger.target.command]
#   run = ["./compose.sh", "web", "worker"]    # services with the names of the trigger's images
#
# The script and compose.yaml are in the folder of the file that defines the trigger. By hand, use both files too, so that
# scaling up starts the deployed images: docker compose -f compose.yaml -f compose.tagtrail.yaml up --detach --scale web=3
set -eu

override=compose.tagtrail.yaml
{
    echo "services:"
    for service in "$@"; do
        # The variable of image web-app is TAGTRAIL_IMAGE_WEB_APP.
        variable=TAGTRAIL_IMAGE_$(printf %s "$service" | tr 'a-z-' 'A-Z_')
        image=$(printenv "$variable") || {
            echo "the trigger has no image $service: $variable is not set" >&2
            exit 1
        }
        printf '  %s:\n    image: "%s"\n' "$service" "$image"
    done
} > "$override.new"

# A digest that can't be pulled changes nothing.
docker compose -f compose.yaml -f "$override.new" pull --quiet "$@"
mv "$override.new" "$override"
# Ends with an error if a service is not healthy, and Tagtrail tries again.
docker compose -f compose.yaml -f "$override" up --detach --wait --no-deps "$@"
