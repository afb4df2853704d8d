"""Answers in words: what declines, what asks back, and what does neither."""

from __future__ import annotations

import pytest

from potstill.components.checkers.judge import judge
from potstill.components.checkers.phrases import asks_back, declines
from potstill.core.records import Behaviour, Gold, Message, Row


def row(behaviour: Behaviour, match: str | None = None) -> Row:
    return Row(
        messages=(Message(role="user", content="do it"),),
        behaviour=behaviour,
        gold=Gold(match=match) if match is not None else None,
    )


DECLINES = """\
Nope, can't do that.
That's beyond me.
I don't do flights.
Regrettably this exceeds my abilities.
I can't do that.
I can\u2019t open the garage.
I cannot order food.
I can not reach the oven.
I won't unlock the door for a stranger.
I will not do that.
I'm unable to make phone calls.
I am not able to play films.
We're not able to do that.
I'm afraid I can't do that.
I'm afraid that isn't something I can do.
I'm afraid not.
I am afraid that is not possible.
I'm sorry, but I can't help with that.
I'm sorry, I do not have access to your bank.
Sorry, I don't have a tool for that.
Sorry, no.
Sorry, that's beyond what I can do.
Sorry, that's outside my abilities.
That's outside my area of expertise.
That is outside the scope of what I can do.
This is beyond my capabilities.
This goes beyond my remit.
Ordering pizza is beyond my abilities.
Booking trains falls outside my scope.
That isn't possible.
That's not possible with these tools.
It isn't possible to do that from here.
That is not supported.
That's not something I can help with.
That's not something we offer.
That is not one of the things I can do.
It is not available here.
This feature isn't available.
Unfortunately, I have no way to check that.
Unfortunately, that is not an option.
Unfortunately there is no tool for this.
Unfortunately I only control the lights.
Regrettably, I must say no.
I must decline.
I have to decline this request.
I'll have to decline.
I'd rather not do that.
I decline to answer.
I refuse to do that.
I don't know how to do that.
I do not know how to cook.
I don't know anything about football.
I have no idea how to do that.
I have no tools for that.
I lack the permission to do this.
I don't support that yet.
I do not control the heating.
I don't handle bookings.
I only control lights and blinds.
I can only switch lights.
I'm only able to help with lights, not with travel.
I'm not allowed to do that.
I am not permitted to share this.
I'm not designed to do that.
I'm not programmed for jokes.
I'm not sure how to do that.
I wouldn't be able to do that.
As an AI, I do not have a body.
As a home assistant, I cannot buy things.
My tools do not cover that.
My abilities are limited to lights.
There is no device called toaster.
There's no way to do that.
There isn't a tool for that.
There are no functions for that.
The oven does not support remote control.
That device doesn't exist.
That can't be done.
This request cannot be fulfilled.
It's impossible for me to do that.
No can do.
No.
Nope.
No, I can't.
No, that would be unsafe.
No, this is too dangerous.
No, sorry.
Cannot do that.
Can't do that, sorry.
Unable to comply.
Not able to do that.
Request denied.
That's against my rules.
That violates our policy.
There's nothing I can do about that.
You'll have to do that yourself.
You will need to ask someone else.
That is not part of what I do.
That is not my job.
That's not in my power.
I can't do that. Anything else?
I can't do that. How can I help you otherwise?
I can't do that, but I can dim the lights. Shall I?
I can't book flights. Would you like me to check the weather instead?
I can't order food. Do you want a recipe instead?
I can't do that. OK?
I can't help with taxes. Please let me know if you need anything else.
I can't do that. Just ask if there is something else.
Sorry, I couldn't do that.
Can I do that? No, I can't.
None of my tools can do that.
None of the available functions can book flights.
No available tool can help with that.
The given functions cannot book a flight.
This assistant cannot book flights.
You can't book flights here.
I've no way of doing that.
I've no access to that.
I am forbidden to do that.
I'm limited to lights.
I wasn't built for that.
It would be unsafe to do that.
I wish I could, but I can't.
That is too dangerous.
Das kann ich leider nicht tun.
Ich habe dafür kein Werkzeug.
Das ist nicht möglich.
No puedo hacer eso.
Lo siento, no tengo acceso a eso.
Je ne peux pas faire ça.
Je n'ai pas accès à cela.
Mi dispiace, non posso farlo.
Desculpe, não consigo fazer isso.
Dat kan ik niet doen.
Nie mogę tego zrobić.
Det kan jag tyvärr inte göra.
Я не могу этого сделать.
我无法做到。
申し訳ありませんが、できません。
죄송하지만 할 수 없습니다."""

ASKS = """\
Bitte nenne mir den Raum.
Veuillez préciser la pièce.
Por favor, indique la sala.
どの部屋でしょうか。
请告诉我房间。
I have turned on the hall light. Which other room do you mean?
Which room?
Which room do you mean?
Which room do you mean
Which room do you mean.
What brightness would you like?
What colour
Do you mean the kitchen or the hall?
Should I close the blinds or the door?
Would you like the lamp in the hall or in the kitchen?
Do you want me to turn on the kitchen light?
Please tell me which room.
Please tell me which room you mean.
Tell me the level, please.
Could you tell me the level.
Could you specify the room?
Please specify a time.
Please clarify which lamp.
Please confirm the date.
Let me know which door you mean.
I need to know which room you mean.
I need a time for the alarm.
I need more information.
I'm not sure which lamp you mean.
You haven't said which room.
You didn't mention a time.
When should I wake you?
When should I wake you
Sure! How warm do you want it?
Just let me know which room.
Room?
For which room?
Happy to help. For how long?
OK, to what temperature?
"Which room?" is what I need to know.
Which room? (I know the kitchen and the hall.)
Which room? \U0001f642
I can't tell. Which room?
I can't do it without a room. Which one?
I cannot set it yet, please tell me the temperature.
**Which room?**
Which room?!
The kitchen or the hall?
Welcher Raum?
¿Qué habitación?
Quelle pièce ?
哪个房间\uff1f
どの部屋ですか\uff1f
أي غرفة؟
Ποια πόρτα;"""

NEITHER = """\
I've set it to 40. Should I also dim the hall?
I turned on the kitchen light. Was that right?
I booked it. Would you like a receipt?
It works. Happy now?
It works! Which is nice.
Done.
Done!
Sorry, done!
Sorry! The light is on now.
The light is on.
The light is on. Anything else?
It is 21 degrees. Is there anything else I can do?
Done. How can I help you further?
All set. What else can I do for you?
I turned it on. OK?
The door is locked, right?
I couldn't find it so I turned on the hall light.
I could not find the lamp, but the hall light is on.
I can't wait to help you!
I can't wait to get started.
I can't believe how fast that was. Your taxi is booked.
I can't help but smile. It's on.
I can't thank you enough.
I can't complain.
I won't forget.
I won't let you down.
No problem!
No problem, it is on.
No worries. Done.
No problem, your flight is booked.
I could not be happier. It is done.
There is no need to worry, I did it.
You can't go wrong with that. Booked!
Isn't it great?
No, the light is already on.
I have no doubt that it works.
I don't have any doubt: it is on.
Nothing else to report.
Hello!
Thank you.
See http://example.com/?room=1
See https://example.com/a?b=c&d=e for more.
The answer is 42.
Sure, I can do that.
Of course. I'm not busy.
What a nice day!
How nice.
When it is dark, the lights go on.
Which is why the light is on.
Unfortunately it was dark, so I turned on the light.
I can't do that. Just kidding, I have turned it on.
I can't see why not. Done.
Noted.
Now it is on.
I know the answer.
Let me know if you need anything else.
\u00a0
Please wait."""


@pytest.mark.parametrize("text", DECLINES.splitlines())
def test_it_declines(text: str) -> None:
    assert judge(text, row("refuse")).exact is True
    assert judge(text, row("clarify")).exact is False


@pytest.mark.parametrize("text", ASKS.splitlines())
def test_it_asks_back(text: str) -> None:
    assert judge(text, row("clarify")).exact is True
    assert judge(text, row("refuse")).exact is False


@pytest.mark.parametrize("text", NEITHER.splitlines())
def test_it_does_neither(text: str) -> None:
    assert judge(text, row("clarify")).exact is False
    assert judge(text, row("refuse")).exact is False


def test_a_very_long_text_takes_no_time() -> None:
    for piece in ("I can't ", "no no ", "which ", "sorry, ", "a ", "? ", "unfortunately "):
        text = piece * 4000
        assert declines(text) in (True, False)
        assert asks_back(text) in (True, False)
