"""Words for open slots. Each word belongs to one split only, which its hash decides (`split_of`)."""

from __future__ import annotations

import zlib

__all__ = ["MESSAGES", "TODOS", "TRAIN_TEXTS", "WORDS", "pool", "split_of"]


def split_of(key: str) -> str:
    """The split of a word: half of the words are in train, a fifth in validation, three tenths in test."""
    bucket = zlib.crc32(key.lower().encode()) % 100
    return "train" if bucket < 50 else "validation" if bucket < 70 else "test"


def pool(words: tuple[str, ...], split: str) -> tuple[str, ...]:
    """The words of one split, in order."""
    return tuple(word for word in words if split_of(word) == split)


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _lines(text: str) -> tuple[str, ...]:
    return tuple(text.strip().splitlines())


NAMES = _words("""
Aaron Abigail Adam Adele Adrian Agnes Ahmed Aisha Alan Albert Alejandro Alex Alfred Alice Alina Amanda Amara Amelia
Amir Amy Ana Andrea Andrew Angela Anita Anna Anne Anton Antonia Aria Arjun Arthur Astrid Audrey August Aurora Ayla
Barbara Basil Beatrice Ben Benjamin Bernard Bianca Bill Birgit Bjorn Boris Brandon Brenda Brian Bridget Bruno Caleb
Camila Carl Carla Carlos Carmen Carol Caroline Cecilia Cedric Celia Charles Charlotte Chloe Chris Clara Claude Claudia
Clement Colin Connor Cora Cyril Daisy Damian Daniel Daria David Dean Deborah Denise Dennis Derek Diana Diego Dmitri
Dominic Dora Doris Dorothy Douglas Duncan Dylan Edgar Edith Edmund Edward Eileen Elaine Eleanor Elena Eli Elias Elisa
Eliza Ella Ellen Elliot Elsa Emil Emily Emma Enzo Eric Erika Erin Esther Ethan Eugene Eva Evelyn Fabian Farah Fatima
Felix Fernando Fiona Flora Florian Frances Frank Freya Frida Gabriel Gareth Gary Gavin George Gerald Gina Giovanni
Gloria Gordon Grace Graham Greta Guido Gustav Hana Hannah Harold Harriet Harry Harvey Hassan Hazel Heather Hector
Heidi Helen Helga Henry Herbert Hilda Holly Howard Hugo Ian Ibrahim Ida Ines Ingrid Irene Iris Isaac Isabel Ivan Ivy
Jack Jacob Jade James Jamila Jane Janet Jasmine Jason Javier Jean Jenna Jennifer Jeremy Jessica Jill Joan Joanna Joel
Johanna John Jonas Jonathan Jorge Joseph Josh Joy Joyce Juan Judith Julia Julian Juliet Justin Kai Karen Karim Karin
Karl Kate Katrin Keith Kenneth Kenji Kevin Kim Kira Klara Klaus Kurt Kyle Lara Lars Laura Lauren Lea Leah Lena Leo
Leon Leonard Leonie Lewis Liam Lidia Lily Linda Linus Lisa Lorenzo Louis Louise Luca Lucas Lucia Lucy Luis Luka Luna
Lydia Mabel Madeleine Magnus Maja Malik Manuel Mara Marcel Marco Marcus Margaret Maria Marina Mario Mark Marlene Marta
Martha Martin Mary Mason Mateo Matilda Matthew Maurice Max Maya Megan Mehmet Melanie Mia Michael Miguel Mila Milan
Milo Minna Miriam Mohamed Moira Molly Monica Morgan Moritz Muriel Myra Nadia Nancy Naomi Natalie Nathan Neil Nelly
Nicholas Nico Nicole Nigel Nikita Nils Nina Noah Noel Nora Norman Odette Olaf Oleg Olga Oliver Olivia Omar Oscar Otto
Owen Pablo Pamela Patricia Patrick Paul Paula Pavel Pedro Penny Peter Petra Philip Phoebe Pia Pierre Priya Quentin
Rachel Rafael Ralph Ramona Raymond Rebecca Renata Rene Ricardo Richard Rita Robert Robin Rodrigo Roger Roland Rosa
Rose Ross Roy Ruby Rudolf Rupert Ruth Ryan Sabine Sally Salma Samantha Samuel Sandra Sara Sebastian Selma Serena
Sergio Seth Sharon Sheila Silvia Simon Sofia Sonia Sophie Stefan Stella Stephen Steven Stuart Susan Svenja Sybil
Sylvester Tamara Tania Tara Teresa Theo Theresa Thomas Tilda Tim Timothy Tina Tobias Tom Tony Tracy Trevor Tristan
Ulrich Uma Ursula Valentin Valerie Vanessa Vera Veronica Victor Vincent Viola Violet Virginia Vivian Walter Wanda
Warren Wendy Werner Wilhelm William Winston Xavier Yara Yasmin Yusuf Yvonne Zachary Zara Zelda Zoe
""")

CITIES = _words("""
Aachen Aberdeen Accra Adelaide Agra Aleppo Algiers Alicante Almaty Amman Amsterdam Ankara Antwerp Asmara Athens
Atlanta Auckland Augsburg Austin Avignon Baghdad Baku Bamako Bangalore Bangkok Barcelona Bari Basel Basra Bath Beirut
Belfast Belgrade Bergen Berlin Bern Bilbao Birmingham Bogota Bologna Bombay Bonn Bordeaux Boston Bratislava Bremen
Brest Brisbane Bristol Bruges Brussels Bucharest Budapest Buffalo Cairo Calgary Cali Cambridge Canberra Cannes Caracas
Cardiff Casablanca Catania Charleston Chennai Chester Chicago Cincinnati Cleveland Cologne Colombo Copenhagen Cordoba
Cork Dakar Dallas Damascus Davos Delhi Denver Derby Detroit Dhaka Dijon Doha Dortmund Dover Dresden Dubai Dublin
Dundee Durban Durham Edinburgh Essen Exeter Faro Ferrara Fez Florence Frankfurt Fresno Galway Gdansk Geneva Genoa
Ghent Girona Glasgow Gothenburg Granada Graz Grenoble Guadalajara Haifa Halifax Hamburg Hanoi Hanover Harare Havana
Heidelberg Helsinki Hereford Hobart Houston Hull Innsbruck Istanbul Izmir Jaipur Jakarta Jena Jerusalem Kabul Kampala
Karachi Kassel Kathmandu Kiel Kingston Kolkata Krakow Kyoto Lagos Lahore Lausanne Leeds Leicester Leipzig Lille Lima
Limerick Limoges Lincoln Linz Lisbon Liverpool Ljubljana Lodz London Lucerne Luebeck Lusaka Lyon Madrid Mainz Malaga
Malmo Manchester Manila Mannheim Maputo Marrakesh Marseille Medina Melbourne Memphis Miami Milan Minsk Modena Monaco
Montreal Mumbai Munich Murcia Nairobi Nantes Naples Narvik Nashville Newcastle Nice Norwich Nottingham Oakland Odense
Odessa Omaha Oran Orlando Osaka Oslo Ottawa Oxford Padua Palermo Palma Paris Parma Perth Phoenix Pisa Pittsburgh
Plymouth Podgorica Portland Porto Potsdam Poznan Prague Pretoria Quito Rabat Reading Reims Reno Riga Rome Rostock
Rotterdam Rouen Sacramento Salerno Salzburg Santiago Sarajevo Seattle Segovia Seoul Seville Shanghai Sheffield Siena
Singapore Skopje Sofia Split Stockholm Strasbourg Stuttgart Sydney Tallinn Tampa Tangier Tbilisi Tehran Tirana Tokyo
Toledo Toronto Toulouse Trieste Tripoli Tromso Tunis Turin Ulm Utrecht Valencia Venice Verona Vienna Vilnius Warsaw
Wellington Winnipeg Worcester York Zagreb Zaragoza Zurich
""")

NOUNS = _words("""
acorn anchor angel apple apron arch arrow atlas attic autumn badge bagel bakery ballad balloon banner barn barrel
basket beach beacon beaver bell bicycle bird blanket blossom boat bottle boulder branch breeze brick bridge brook
brush bucket butterfly button cabin cactus camel camera candle canoe canyon captain caravan carnival carpet castle
cathedral cellar chapel cherry chimney circus cliff cloud clover coast coffee comet compass copper coral corner
cottage cradle crane creek crown crystal daisy dancer dawn desert diamond dolphin dragon dream drum dune dust eagle
echo elephant ember engine evening falcon feather fence fern ferry festival fiddle field fireplace flame flamingo
flock flute forest fountain fox frost galaxy gallery garden garlic giant glacier glove goose grain granite grape grove
guitar hammer harbor harp harvest hawk heart hedge helmet heron hill holiday honey horizon horse hunter iceberg island
ivory jacket jewel journey jungle kettle kingdom kite kitten ladder lagoon lake lantern lark lemon leopard library
lighthouse lily lion lizard lobby loft lotus magnet mansion maple marble market meadow melody mermaid meteor midnight
mill mirror mist moon morning mosaic moss mountain museum mustard needle nest notebook nursery oak oasis ocean office
olive orbit orchard orchid otter owl palace panda paper parade park parrot path peach pearl pebble pepper piano picnic
pigeon pillow pilot pine pioneer planet plaza pocket poet pond poppy prairie prince puppet puzzle quarry queen rabbit
radio rain rainbow raven reef ribbon river road robin rocket roof rose ruby saddle sail salmon satellite scarf school
season shadow shell shepherd ship shore signal silver sketch sleigh smoke snow spark sparrow spider spring spruce
square squirrel stable star statue stone storm story stream studio study summer sun sunrise sunset swan sword tailor
temple tent theater thunder tiger toast tower trail train treasure trumpet tulip tunnel turtle twilight umbrella
valley velvet village violin voyage wagon walnut water wave whale wheel willow wind window winter wizard wolf workshop
yacht zebra
""")

ADJECTIVES = _words("""
amber ancient awake bitter black blue bold brave bright broken brown bronze busy calm careful cheap clean clear clever
cold cool cosy crimson crisp curious curly dark deep distant dry dusty eager early electric empty endless faint famous
fancy fast final first fluffy foggy forgotten free fresh frozen funny gentle giant glass gold golden grand gray great
green happy heavy hidden high hollow honest huge humble hungry icy jolly kind last late lazy light little lonely long
lost loud lucky magic marine mellow merry mighty misty modern narrow neat new noble noisy northern old open orange
organic pale patient perfect pink plain polite proud purple quick quiet rapid rare ready red restless rich ripe rough
round royal rusty salty scarlet secret sharp shiny short shy silent silky silly simple sleepy slow small smooth snowy
soft solid southern special spicy stormy strange strong sudden sunny sweet swift tall tender thick thin tiny tired
tropical true ultra upper vast velvet violet warm western wet white wide wild windy wise wooden yellow young
""")

ITEMS = _words("""
almonds apples apricots artichokes asparagus avocados bacon bagels bananas bandages basil batteries beans beef beets
berries biscuits bleach blueberries bolts bread broccoli brushes burgers butter buttermilk cabbage candles carrots
cashews cauliflower celery cereal champagne charcoal cheddar cheese cherries chickpeas chicken chili chives chocolate
cider cinnamon clementines cocoa coconut cod coriander corn cornflakes couscous crackers cranberries cream croissants
cucumber cumin currants curry dates deodorant detergent dill doughnuts duck dumplings eggplant eggs envelopes feta
figs flour flowers foil garlic gelatin gherkins ginger glitter gloves glue gnocchi granola grapefruit grapes gravy
halibut ham hazelnuts herbs honey horseradish hummus jam juice kale ketchup kiwis lamb lasagna leeks lemonade lemons
lentils lettuce limes lobster macaroni mackerel mangoes margarine markers marmalade matches mayonnaise melon milk mint
mozzarella muesli muffins mushrooms mussels mustard nachos nails napkins nectarines noodles nutmeg nuts oatmeal oats
octopus oil olives onions oranges oregano oysters paint pancakes papaya paprika parmesan parsley parsnips pasta pastry
peaches peanuts pears peas pecans pencils pepper pickles pineapple pistachios plums polenta pomegranates popcorn pork
porridge potatoes prawns pretzels prunes pumpkin quinoa radishes raisins raspberries ravioli rhubarb rice ricotta
rolls rosemary rum saffron sage salad salami salmon salsa salt sandpaper sardines sausages scallops screws seaweed
sesame shampoo sherry shrimp soap soda spaghetti spinach sponges sprouts squash stamps steak strawberries string sugar
sunscreen sushi syrup tangerines tape tea thyme tissues tofu tomatoes toothpaste tortillas towels trout tuna turkey
turmeric turnips vanilla vinegar vodka waffles walnuts wasabi watercress watermelon wax wine wipes yeast yogurt
zucchini
""")

ROOM_WORDS = _words("""
art band bath billiard boiler box breakfast bunk changing children cinema cloak club coat computer craft dance day
drawing dressing drying family fitness front games garden guest gym hobby home ironing junk lower laundry library
linen locker lounge lumber mail map meeting mud music painting pantry photo piano play pool prayer printing pump quilt
reading rest rumpus sauna server sewing shoe shower sitting sleeping smoking snack snooker spare sport staff steam
stock storage store sun tea television tool training trophy utility waiting wardrobe wash wine work yoga
""")

DOOR_WORDS = _words("""
attic bakery barn basement bathroom bedroom bike boat boiler brown car cottage courtyard deck dining dog east elevator
entrance entry exit fence fire french freezer fridge gallery glass granny green greenhouse grey guest gym hall hallway
kitchen laundry library lift loft lower main north nursery office outer oven pantry patio playroom pool porch red roof
sauna second shed shop shower sliding sports stable stairs steel storage store street studio summer terrace tool top
upper utility veranda west white wine workshop yard yellow
""")

LIST_WORDS = _words("""
anniversary baby bakery barbecue beach bicycle birthday boat book bucket budget butcher cake camping car chores
christmas cinema cleaning clothes club cocktail concert cooking craft daily diet dinner dog drinks easter errand
evening exam family farm festival film fishing fitness garden gift guest gym hardware health hiking hobby holiday
homework house invitation kids kitchen knitting library lunch market medicine menu monthly morning moving museum music
office paint party pet pharmacy phone picnic plant present project reading recipe repair road sailing school sewing
ski snack spring stationery summer supper task tea tool toy travel trip vegetable visit wedding weekend weekly winter
wish work workshop
""")

SCENE_WORDS = _words("""
baking bath beach board breakfast card chess christmas cinema cleaning coffee concert cooking dance date dinner disco
dream exercise family film fire focus football fun game garden gaming girls guest gym holiday homework horror italian
jazz karaoke kids lunch massage meeting moon morning music nap opera painting party piano picnic pizza poetry poker
pool quiz rainy reading rest romance school siesta singing sleep spa sport story study summer sunset supper tea
theater training travel tv vacation wedding wine winter work yoga
""")

OBJECTS = _words("""
armchair axe bag ball balcony basement basket bath battery bed bench bicycle bike bin blanket blender boat boiler bowl
bookcase boots bottle box bread bridge broom brush bucket bus cabinet cable cake camera candle car card carpet cat
ceiling chair charger cheque clock closet coat compost computer contract cooker couch cradle cupboard cup curtain
cushion desk dishwasher dog drawer dress drill driveway dryer engine envelope fan faucet fence filter fireplace fish
flag floor flute fork freezer fridge fryer furnace garage gift glasses goldfish grill guitar gutter hammer hamster
heater hedge helmet hose invoice iron jacket jar jeans kettle keyboard kite knife ladder lamp laptop lawn letter
license lock luggage mailbox map mattress medicine microwave mirror mower mug napkin necklace newspaper notebook oven
package pan paper parcel passport phone photo piano pillow pipe plate plug poster pot present printer projector pump
purse radiator radio raincoat razor receipt report ring roof router rug sandals sandbox saw scarf scooter screen shed
shelf shirt shoes shovel shower sink skates ski sled socks sofa speaker spoon stairs statue stove suit suitcase
sweater swing table tablet tank tap tent ticket tie toaster toilet toolbox toothbrush towel tractor tray trousers
truck trumpet tub tv uniform umbrella van vase violin visa wallet wardrobe washer watch wheelbarrow window wreath
""")

WORDS = {
    "p": NAMES,
    "c": CITIES,
    "n": NOUNS,
    "a": ADJECTIVES,
    "i": ITEMS,
    "o": OBJECTS,
    "room": ROOM_WORDS,
    "door": DOOR_WORDS,
    "list": LIST_WORDS,
    "scene": SCENE_WORDS,
}
"""Word lists by kind."""

# {o} is an object, {n} a noun, {a} an adjective, {i} an item, {p} a person; all from the split that uses the pattern.
MESSAGES = _lines("""
the {o} is {a}
I am at the {n}
I will be late
I will be at the {n} soon
dinner is ready
the {a} {n} is here
we are waiting at the {n}
I have found the {a} {o}
please bring the {o}
do not forget the {o}
the {n} starts soon
I like the {a} {o}
see you at the {n}
see you later
I am on my way
thank you for the {n}
happy birthday
I will call you from the {n}
the train is late
we need the {a} {o}
the {n} was {a} today
I am {a} and hungry
your {o} has arrived
can you bring the {o}
where is the {n}
is the {o} still {a}
I lost my {o}
meet me near the {a} {n}
the meeting is at the {n}
I bought the {a} {o}
good luck with the {n}
I miss you
the keys are under the {o}
come home early
we have no {n} left
I am stuck at the {n}
you were right about the {o}
the {o} and the {o} are {a}
my {o} is broken
the dog ate the {n}
I passed the exam
we won the {n}
I am outside
the doctor was {a}
I had the {a} {o} today
the {a} {n} was a good idea
are you free for the {n}
I love the {o} you made
I like your {a} {o}
all is well here
the {o} is almost {a}
leave the {o} at home
I forgot the {a} {o} again
my phone is almost empty
the party is at the {n}
we took the {a} road
nobody saw the {o}
lunch was {a}
you can keep the {o}
the guests like the {n}
""")

TODOS = _lines("""
call {p}
water the {n}
clean the {o}
buy {i}
buy some {i}
pick up the {o}
pick up {p}
feed the {n}
check the {o}
pay for the {o}
book the {n}
order {i}
cook the {i}
fix the {a} {o}
take out the {o}
visit {p}
write to {p}
thank {p} for the {n}
return the {a} {o}
pack the {o}
wash the {a} {o}
paint the {o}
read about the {o}
practice the {n}
meet {p} near the {n}
turn off the {o}
lock the {o}
bring {i} to {p}
send the {o} to {p}
look for the {a} {o}
renew the {o}
cut the {i}
bake {i}
ask {p} about the {o}
wrap the {o} for {p}
charge the {o}
print the {o}
move the {a} {o}
walk to the {n}
finish the {n}
""")

# More patterns for train alone, of kinds that the hash put into the other splits.
TRAIN_TEXTS = {
    "text": _lines("""
I sold the {o}
I will bring the {i}
I can see the {n} from the {n}
I think the {o} is {a}
my {n} is {a}
my {a} {o} fell off the {n}
the {n} with the {o} is closed
the {i} are in the {o}
you have left the {o} here
you were {a} about the {n}
your {n} looks {a}
tell me about the {n}
thank you for {i}
we love the {n} you painted
that {o} belongs to {p}
this is the {a} {n}
{p} is at the {n}
{p} and {p} are {a}
please look at the {o}
wait for me near the {n}
what did you do with the {o}
why is the {n} so {a}
how is the {a} {n}
who took the {o}
the {o} of the {n} costs too much
there is a {n} behind the {o}
all the {i} are gone
it was about the {o}
"""),
    "todo": _lines("""
reply to {p}
speak to {p}
talk to {p} about the {o}
listen to {p}
write a letter to {p}
write down the {n}
write the {n} for {p}
sing to the {n}
go to the {n}
run to the {n} with {p}
say hello to {p}
tell {p} about the {a} {n}
get some {i}
get {p} a {o}
sell the {o}
order some {i} for {p}
buy a {a} {o}
give the {o} to {p}
open the {o}
sort the {i}
carry the {o} to the {n}
study the {n}
put the {i} into the {o}
measure the {a} {n}
plant {i} near the {n}
wake {p}
hang up the {o}
borrow the {o} of {p}
"""),
}
"""Patterns by slot."""
