#!/usr/bin/env bash
# Grant the least rights that one side of imagelane needs on a cluster with an authorizer.
#
#   deploy/kafka-acls.sh consumer  User:imagelane-consumer  --bootstrap-server HOST:PORT [...]
#   deploy/kafka-acls.sh ingestion User:imagelane-ingestion --bootstrap-server HOST:PORT [...]
#   deploy/kafka-acls.sh reader    User:an-indexer          --bootstrap-server HOST:PORT [...]
#   deploy/kafka-acls.sh --print consumer     # the rights, one a line, and nothing else
#
# What follows the principal goes to kafka-acls.sh as it is; KAFKA_ACLS names another command for it.
# A reader of results shares them in a group of its own where READER_GROUP names one.
# Topics and group are those of the settings: INGEST_TOPIC, QUERIES_TOPIC, RESULTS_TOPIC, DLQ_TOPIC, GROUP_ID.
set -euo pipefail

ingest=${INGEST_TOPIC:-image.ingest}
queries=${QUERIES_TOPIC:-image.queries}
results=${RESULTS_TOPIC:-image.results}
dlq=${DLQ_TOPIC:-image.ingest.dlq}
group=${GROUP_ID:-imagelane}

rights() { # kind, name, pattern type, operations
  case $1 in
    consumer)
      for topic in "$ingest" "$queries"; do
        echo "topic $topic literal Read DescribeConfigs"
      done
      echo "topic $results literal Read Write DescribeConfigs"
      echo "topic $dlq literal Write DescribeConfigs"
      echo "group $group literal Read"
      echo "transactional-id $group- prefixed Write"
      ;;
    ingestion)
      for topic in "$ingest" "$queries"; do
        echo "topic $topic literal Read Write"
      done
      echo "topic $results literal Read"
      echo "topic $dlq literal Read"
      echo "group $group literal Describe"
      ;;
    reader)
      echo "topic $results literal Read"
      if [ -n "${READER_GROUP:-}" ]; then echo "group $READER_GROUP literal Read"; fi
      ;;
    *)
      echo "kafka-acls.sh: consumer, ingestion or reader, not '$1'" >&2
      return 2
      ;;
  esac
}

if [ "${1:-}" = --print ]; then
  rights "${2:-}"
  exit
fi
[ $# -ge 2 ] || { sed -n '2,11s/^# \{0,1\}//p' "$0" >&2; exit 2; }
side=$1 principal=$2
shift 2
read -ra acls <<<"${KAFKA_ACLS:-kafka-acls.sh}"
granted=$(rights "$side")
while read -r kind name pattern operations; do
  arguments=(--add --force --allow-principal "$principal" "--$kind" "$name" --resource-pattern-type "$pattern")
  for operation in $operations; do arguments+=(--operation "$operation"); done
  "${acls[@]}" "${arguments[@]}" "$@" </dev/null
done <<<"$granted"
