"""The recipe: one YAML file that holds every setting of a run. One module per concern; import from here.

Unknown keys are errors that name the nearest known key. Paths are relative to the recipe's own folder, which
`load_recipe` passes as context.
"""

from potstill.core.recipe.budget import Budget
from potstill.core.recipe.chat import Chat
from potstill.core.recipe.classifier import (
    ClassifierEvaluate,
    ClassifierGates,
    ClassifierRecipe,
    ClassifierStudent,
    ClassifierTeacher,
    ClassifierTrain,
)
from potstill.core.recipe.data import Data, LabelledData
from potstill.core.recipe.fields import COSMETIC, ELSEWHERE, Section, split_revision
from potstill.core.recipe.gates import Gates
from potstill.core.recipe.generate import Generate
from potstill.core.recipe.identity import recipe_hash
from potstill.core.recipe.load import AnyRecipe, load_recipe
from potstill.core.recipe.objective import DIVERGENCES, Divergence, Hidden, Objective, OnPolicy, Sft
from potstill.core.recipe.recipe import Recipe
from potstill.core.recipe.schedule import Optimization, Schedule, Trainer
from potstill.core.recipe.several import MemberTeacher, SeveralTeachers, Teacher
from potstill.core.recipe.shape import Shape
from potstill.core.recipe.shipping import Evaluate, Export, Finish, Package, Quantization
from potstill.core.recipe.student import FromCheckpoint, FromScratch, Student, TeacherLayers
from potstill.core.recipe.target import Target
from potstill.core.recipe.targets import MAX_SERVED_LOGPROBS, CountTargets, StoredTargets, TopKTargets
from potstill.core.recipe.teacher import ApiTeacher, Finetune, LocalTeacher, Offload
from potstill.core.recipe.terms import Economy, TokenPrice
from potstill.core.recipe.train import Train
from potstill.core.recipe.worth import Rung, RungName, Worth

__all__ = [
    "COSMETIC",
    "DIVERGENCES",
    "ELSEWHERE",
    "MAX_SERVED_LOGPROBS",
    "AnyRecipe",
    "ApiTeacher",
    "Budget",
    "Chat",
    "ClassifierEvaluate",
    "ClassifierGates",
    "ClassifierRecipe",
    "ClassifierStudent",
    "ClassifierTeacher",
    "ClassifierTrain",
    "CountTargets",
    "Data",
    "Divergence",
    "Economy",
    "Evaluate",
    "Export",
    "Finetune",
    "Finish",
    "FromCheckpoint",
    "FromScratch",
    "Gates",
    "Generate",
    "Hidden",
    "LabelledData",
    "LocalTeacher",
    "MemberTeacher",
    "Objective",
    "Offload",
    "OnPolicy",
    "Optimization",
    "Package",
    "Quantization",
    "Recipe",
    "Rung",
    "RungName",
    "Schedule",
    "Section",
    "SeveralTeachers",
    "Sft",
    "Shape",
    "StoredTargets",
    "Student",
    "Target",
    "Teacher",
    "TeacherLayers",
    "TokenPrice",
    "TopKTargets",
    "Train",
    "Trainer",
    "Worth",
    "load_recipe",
    "recipe_hash",
    "split_revision",
]
