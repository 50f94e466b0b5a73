/* An agent in C: one JSON object a line in, one a line out, nothing but the C library.
 *
 * It reads the fields it needs where they stand, which is enough for messages from the arena; it is
 * not a JSON reader for anything else. Messages other than callbacks are ignored.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LINE_BYTES (1 << 20)

static char line[LINE_BYTES];

/* The text after `"name":`, or NULL. */
static const char *field(const char *name) {
    char key[64];
    snprintf(key, sizeof key, "\"%s\":", name);
    const char *at = strstr(line, key);
    if (at == NULL)
        return NULL;
    at += strlen(key);
    while (*at == ' ')
        at++;
    return at;
}

/* A whole number, or -1 for null and for a field that is not there. */
static long amount(const char *name) {
    const char *at = field(name);
    return at == NULL || *at == 'n' ? -1 : atol(at);
}

static int can(const char *action) {
    const char *at = field("legal_actions");
    const char *end = at == NULL ? NULL : strchr(at, ']');
    char quoted[16];
    snprintf(quoted, sizeof quoted, "\"%s\"", action);
    const char *found = at == NULL ? NULL : strstr(at, quoted);
    return found != NULL && found < end;
}

static int rank_of(char letter) {
    return (int)(strchr("23456789TJQKA", letter) - "23456789TJQKA");
}

/* Pairs and high cards are worth a raise; anything else a look when it is cheap. */
static int strength(void) {
    const char *cards = field("hole_cards");
    const char *board = field("board");
    if (cards == NULL || board == NULL)
        return 0;
    int first = rank_of(cards[2]), second = rank_of(cards[6] == ' ' ? cards[8] : cards[7]);
    int points = first + second + (first == second ? 12 : 0);
    for (const char *at = board; *at != '\0' && *at != ']'; at++)
        if (*at == '"' && at[1] != '\0' && at[3] == '"') {
            int shared = rank_of(at[1]);
            points += shared == first || shared == second ? 14 : 0;
            at += 3;
        }
    return points;
}

int main(void) {
    setvbuf(stdout, NULL, _IOLBF, 1 << 16);
    while (fgets(line, sizeof line, stdin) != NULL) {
        const char *type = field("type");
        const char *id = field("decision_id");
        if (id == NULL || *id != '"' || (type != NULL && strncmp(type, "\"callback\"", 10) != 0))
            continue;
        int id_length = (int)strcspn(id + 1, "\"");
        int points = strength();
        long call = amount("to_call"), pot = amount("pot"), least = amount("min_raise_to");
        printf("{\"decision_id\": \"%.*s\", ", id_length, id + 1);
        if (points >= 24 && least > 0 && (can("bet") || can("raise")))
            printf("\"action\": \"%s\", \"amount\": %ld}\n", can("bet") ? "bet" : "raise", least);
        else if (can("check"))
            printf("\"action\": \"check\"}\n");
        else if (can("call") && (points >= 16 || call * 5 <= pot))
            printf("\"action\": \"call\"}\n");
        else
            printf("\"action\": \"fold\"}\n");
    }
    return 0;
}
